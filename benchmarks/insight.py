"""The cost of insight, ops process included: `python -m benchmarks.run --insight`, our worker with and without.

CPU per request is what to look at on a machine that is not quiet: others can take time from a server, and not make it
compute less for a request. Rates and latencies are those of the closed loop.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from .peers import OURS, Peer
from .stats import Round

WITHOUT = Peer("greenroom_blind", worker_class=OURS, settings={"GREENROOM_INSIGHT": "no", "GREENROOM_OPS_BIND": "off"})
MOST_LOST_RATIO = 0.1
MOST_P99_MS = 1.0
MOST_MICROSECONDS = 15.0


@dataclass(frozen=True)
class Cost:
    """Of a route, in medians over rounds; of each round with insight against the one without."""

    route: str
    lost_ratio: float  # of the requests per second
    lost_ratio_by_cpu: float  # of the requests per second of CPU
    p99_ms: float  # added
    microseconds: float  # of CPU, added to each request
    memory_bytes: int  # added to the worker

    @property
    def is_within(self) -> bool:
        return self.lost_ratio < MOST_LOST_RATIO and self.p99_ms < MOST_P99_MS and self.microseconds < MOST_MICROSECONDS

    def sentence(self) -> str:
        return (
            f"insight costs the {self.route} route {self.lost_ratio:.1%} of its requests/s "
            f"({self.lost_ratio_by_cpu:.1%} by CPU time), {self.p99_ms:+.2f} ms of p99, "
            f"{self.microseconds:.1f} µs of CPU a request, {self.memory_bytes / 1e6:+.1f} MB in all"
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "is_within": self.is_within, "sentence": self.sentence()}


def cost(route: str, rounds: Sequence[Round]) -> Cost | None:
    """None where one of the two was not measured, or did nothing in some round."""
    with_it = {one.number: one for one in rounds if (one.route, one.server) == (route, OURS)}
    without = {one.number: one for one in rounds if (one.route, one.server) == (route, WITHOUT.name)}
    pairs = [(with_it[number], without[number]) for number in with_it.keys() & without.keys()]
    if not pairs or not all(one.completed and one.server_cpu_ratio for pair in pairs for one in pair):
        return None
    return Cost(
        route,
        lost_ratio=1 - median(on.requests_per_second / off.requests_per_second for on, off in pairs),
        lost_ratio_by_cpu=1 - median(cpu_seconds(off) / cpu_seconds(on) for on, off in pairs),
        p99_ms=median(on.p99_ms - off.p99_ms for on, off in pairs),
        microseconds=1e6 * median(cpu_seconds(on) - cpu_seconds(off) for on, off in pairs),
        memory_bytes=round(median(on.memory_bytes - off.memory_bytes for on, off in pairs)),
    )


def cpu_seconds(one: Round) -> float:
    """Of a request."""
    return one.server_cpu_ratio / one.requests_per_second
