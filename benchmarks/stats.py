"""Numbers about numbers: percentiles, medians over rounds, ratios. Pure functions."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` % of them do not exceed (nearest rank); NaN when there are none.

    It is always a value that was measured. Interpolation would invent one between 100 ms and a time-out of 30 s.
    """
    if not values:
        return math.nan
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


@dataclass(frozen=True)
class Round:
    """One server's measurements with one route in one round.

    Latencies are milliseconds of the requests that were started in the measured time. A request that timed out is
    among them, with the time it took; one that failed in another way is only an error, because failing fast is not
    being fast.
    """

    server: str
    route: str
    number: int
    seconds: float
    completed: int
    requests_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    errors: Mapping[str, int] = field(default_factory=dict)
    memory_bytes: int = 0
    generator_cpu_ratio: float = 0.0
    server_cpu_ratio: float = 0.0
    # Of the cores that generator, upstream and database share; None where nothing was pinned.
    load_cores_busy_ratio: float | None = None
    # The share of the server's core that other programs and the kernel itself took; None where nothing was pinned.
    others_on_server_core_ratio: float | None = None
    clients: int = 0

    @property
    def cpu_microseconds(self) -> float:
        """The server's CPU time for a request; NaN when it answered none.

        It holds also where the upstream or the load generator is the limit, and where others take time from the server.
        """
        return 1e6 * self.server_cpu_ratio / self.requests_per_second if self.requests_per_second else math.nan

    def as_dict(self) -> dict[str, Any]:
        return without_nan({**asdict(self), "cpu_microseconds": self.cpu_microseconds})


@dataclass(frozen=True)
class Summary:
    """One server and one route over all rounds: medians.

    But errors are summed, and of what may spoil a measurement (the load side's and other programs' use of CPU) the
    highest is kept.
    """

    server: str
    route: str
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: Mapping[str, int]
    memory_bytes: int
    server_cpu_ratio: float
    generator_cpu_ratio: float
    load_cores_busy_ratio: float | None
    others_on_server_core_ratio: float | None
    cpu_microseconds: float = math.nan  # of a request
    clients: int = 0
    # Against the baseline; None where the baseline did nothing.
    requests_per_second_ratio: float | None = None
    p50_ratio: float | None = None
    p99_ratio: float | None = None

    @property
    def error_count(self) -> int:
        return sum(self.errors.values())

    def as_dict(self) -> dict[str, Any]:
        return without_nan(asdict(self))


def summarize(rounds: Sequence[Round], baseline: str) -> list[Summary]:
    """A Summary for each server and route, in the order in which they first appear, with ratios to `baseline`."""
    pairs = list(dict.fromkeys((one.route, one.server) for one in rounds))
    plain = {
        (route, server): _over_rounds([one for one in rounds if (one.route, one.server) == (route, server)])
        for route, server in pairs
    }
    return [_with_ratios(summary, plain.get((route, baseline))) for (route, _), summary in plain.items()]


def _over_rounds(rounds: Sequence[Round]) -> Summary:
    return Summary(
        server=rounds[0].server,
        route=rounds[0].route,
        requests_per_second=median(one.requests_per_second for one in rounds),
        p50_ms=median_known(one.p50_ms for one in rounds),
        p99_ms=median_known(one.p99_ms for one in rounds),
        errors=dict(sum((Counter(one.errors) for one in rounds), Counter())),
        memory_bytes=round(median(one.memory_bytes for one in rounds)),
        server_cpu_ratio=median(one.server_cpu_ratio for one in rounds),
        generator_cpu_ratio=max(one.generator_cpu_ratio for one in rounds),
        load_cores_busy_ratio=highest(one.load_cores_busy_ratio for one in rounds),
        others_on_server_core_ratio=highest(one.others_on_server_core_ratio for one in rounds),
        cpu_microseconds=median_known(one.cpu_microseconds for one in rounds),
        clients=max(one.clients for one in rounds),
    )


def _with_ratios(summary: Summary, baseline: Summary | None) -> Summary:
    if baseline is None:
        return summary
    ratios = {
        "requests_per_second_ratio": ratio(summary.requests_per_second, baseline.requests_per_second),
        "p50_ratio": ratio(summary.p50_ms, baseline.p50_ms),
        "p99_ratio": ratio(summary.p99_ms, baseline.p99_ms),
    }
    return Summary(**{**asdict(summary), **ratios})


def median_known(values: Iterable[float]) -> float:
    """The median of those that are not NaN; NaN when none is known."""
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def ratio(value: float, baseline: float) -> float | None:
    """None when it would say nothing: the baseline is 0, or one of the two is unknown."""
    if math.isnan(value) or math.isnan(baseline) or baseline == 0:
        return None
    return value / baseline


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is unknown is null there."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
