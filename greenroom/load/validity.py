"""Whether the numbers are the server's, or those of the generator.

Not valid is a run in which
    1. more than 0.1 % of the requests could not be sent: no descriptor, no port, no connection, no time
    2. the load was not the planned one: at p99 the generator was later than 100 ms, and than a tenth of the latency
    3. an expectation about latency failed which, without the generator's lateness, would have held
    4. nothing was expected, so that the numbers are all there is, and at p99 a quarter of the latency, and more than
       20 ms, is the generator's

Lateness makes a server look worse, never better: what held in spite of it holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .expectations import Expectation
from .histogram import Histogram
from .tally import Tally
from .units import written

MOST_UNSENT_RATIO = 0.001
OTHER_LOAD_SECONDS, OTHER_LOAD_SHARE = 0.100, 0.1
OTHER_NUMBERS_SECONDS, OTHER_NUMBERS_SHARE = 0.020, 0.25
FULL_CORE_RATIO = 0.85
ADVICE = {
    "no free descriptor": "raise the limit of open files: `ulimit -n 65536`",
    "no free port": "keep connections alive (leave out --new-connections), or widen net.ipv4.ip_local_port_range",
    "no time": "ask for a lower rate, or spread the load over more processes with --locustfile",
    "no free connection": "raise --connections, or leave it out",
}
# A lateness that says nothing: what any scheduler does to any process.
USUAL_LATENESS_SECONDS = 0.001


@dataclass(frozen=True)
class Validity:
    """`problems` has a sentence for each reason, with what to do; none: the run is valid."""

    problems: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        return not self.problems


def judge(
    tally: Tally,
    latency: Histogram,
    cpu_ratio: float,
    failed: Sequence[tuple[Expectation, float | None]] = (),
    *,
    is_expected: bool = True,
) -> Validity:
    """`failed` are the expectations that did not hold, with what was measured; `is_expected`: there were some."""
    problems = []
    unsent = sum(tally.unsent.values())
    if tally.planned and unsent > MOST_UNSENT_RATIO * tally.planned:
        problems += [_unsent(kind, count, tally) for kind, count in tally.unsent.most_common()]
    if tally.is_short_of_descriptors and tally.waited > MOST_UNSENT_RATIO * tally.planned:
        problems.append(
            f"{tally.waited} of {tally.planned} requests waited for a free descriptor before they were sent; "
            + ADVICE["no free descriptor"]
        )
    late, p99 = _late_seconds(tally, 99), latency.percentile(99) or 0.0
    blamed = [one for one, value in failed if _would_have_held(one, value, tally)]
    if late > OTHER_LOAD_SECONDS and late > OTHER_LOAD_SHARE * p99:
        problems.append(_late(late, cpu_ratio))
    elif not is_expected and late > OTHER_NUMBERS_SECONDS and late > OTHER_NUMBERS_SHARE * p99:
        problems.append(_late(late, cpu_ratio))
    elif blamed:
        problems.append(f"{blamed[0].text} might have held without the generator: {_late(late, cpu_ratio)}")
    return Validity(tuple(problems))


def _late_seconds(tally: Tally, percent: float) -> float:
    """How late requests left, or answers were read, whichever is more."""
    return max(tally.lateness.percentile(percent) or 0.0, tally.reading.percentile(percent) or 0.0)


def _would_have_held(expectation: Expectation, value: float | None, tally: Tally) -> bool:
    if value is None or not expectation.is_latency or not expectation.wants_less:
        return False
    late = (
        tally.lateness.mean() or 0.0
        if expectation.metric == "mean"
        else _late_seconds(tally, expectation.percent or 100)
    )
    return late > USUAL_LATENESS_SECONDS and expectation.holds(value - late)


def _late(late: float, cpu_ratio: float) -> str:
    words = f"the generator was {written(late)} late at p99"
    if cpu_ratio >= FULL_CORE_RATIO:
        return (
            f"{words} and used {cpu_ratio:.0%} of a core, which is all that it can: ask for a lower rate, or spread "
            "the load over more processes with --locustfile"
        )
    return (
        f"{words} although it needed only {cpu_ratio:.0%} of a core: other programs took the CPU; give the generator a "
        "core of its own (taskset), or another machine"
    )


def _unsent(kind: str, count: int, tally: Tally) -> str:
    words = f"{count} of {tally.planned} requests could not be sent: {kind}"
    return f"{words}; {ADVICE.get(kind, 'see to it on this machine')}"
