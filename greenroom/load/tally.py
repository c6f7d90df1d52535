"""The outcomes of the requests of a run: by kind of request, and by second.

Of a second it is counted which requests were due in it, which answers came in it, and the latency of those that were
due in it. Latency is that of good answers and of requests that timed out: a hanging server cannot hide behind the
answers that it gave, and one that turns requests away does not look quick for that.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from .histogram import Histogram, index_of, merged

GOOD, SHED, TIMED_OUT = "good", "shed", "timed out"
# A request that leaves later than this after its planned moment is counted as late.
LATE_SECONDS = 0.010


class Route:
    """One kind of request. `requests` have ended one way or another; `kinds` counts the errors by what they were."""

    __slots__ = ("bytes", "errors", "good", "kinds", "latency", "shed")

    def __init__(self) -> None:
        self.latency = Histogram()
        self.good = self.shed = self.errors = self.bytes = 0
        self.kinds: Counter[str] = Counter()

    @property
    def requests(self) -> int:
        return self.good + self.shed + self.errors

    def merge(self, other: "Route") -> None:
        self.latency.merge(other.latency)
        self.good += other.good
        self.shed += other.shed
        self.errors += other.errors
        self.bytes += other.bytes
        self.kinds.update(other.kinds)


class Second:
    """One second of the run. `asked`: due in it; `good`, `shed`, `errors`: ended in it."""

    __slots__ = ("asked", "errors", "good", "late", "latency", "sent", "shed")

    def __init__(self) -> None:
        self.asked = self.sent = self.late = self.good = self.shed = self.errors = 0
        self.latency = Histogram()


@dataclass
class Tally:
    """All that is counted while the generator runs. `length`: how long requests are planned for; None: not known."""

    length: float | None = None
    routes: dict[str, Route] = field(default_factory=dict)
    seconds: list[Second] = field(default_factory=list)
    lateness: Histogram = field(default_factory=Histogram)  # from the planned moment until it was looked at
    reading: Histogram = field(default_factory=Histogram)  # how long an answer may have lain there unread
    unsent: Counter[str] = field(default_factory=Counter)
    planned: int = 0
    waited: int = 0  # left late because no connection was free
    is_short_of_descriptors: bool = False
    good_in_time: int = 0
    good_after: list[float] = field(default_factory=list)
    connections: int = 0
    events: int = 0

    def second(self, moment: float) -> Second:
        number = int(moment)
        while len(self.seconds) <= number:
            self.seconds.append(Second())
        return self.seconds[number]

    def ended(self, route: str, due: float, moment: float, outcome: str, received_bytes: int) -> None:
        """A request was answered or failed; `outcome` is GOOD, SHED or the kind of error."""
        row = self.second(moment)
        place = self.routes.get(route)
        if place is None:
            place = self.routes[route] = Route()
        place.bytes += received_bytes
        if outcome is GOOD:
            place.good += 1
            row.good += 1
            if self.length is None or moment < self.length:
                self.good_in_time += 1
            else:
                self.good_after.append(moment)
        elif outcome is SHED:
            place.shed += 1
            row.shed += 1
            return
        else:
            place.errors += 1
            row.errors += 1
            place.kinds[outcome] += 1
            if outcome != TIMED_OUT:
                return
        took = moment - due
        index = index_of(int(took * 1e6))
        place.latency.record_at(index, took)
        self.seconds[int(due)].latency.record_at(index, took)

    def whole(self) -> Route:
        found = Route()
        for one in self.routes.values():
            found.merge(one)
        return found

    def good_per_second(self, length: float, *, is_whole: bool) -> float:
        """Good answers a second while the load lasted; not `is_whole`: it was stopped.

        An answer takes time, so the window in which answers count opens as late as the quickest of them came: a server
        that answers all after 2 s gets the rate that was asked, one that answers half of it in time gets half.
        """
        if length <= 0:
            return 0.0
        if self.length is None or not is_whole:
            return (self.good_in_time + len(self.good_after)) / length
        quickest = merged(one.latency for one in self.routes.values()).smallest
        return (self.good_in_time + sum(moment < length + quickest * 1.1 for moment in self.good_after)) / length


def second_as_json(number: int, row: Second) -> dict[str, Any]:
    return {
        "second": number,
        "asked": row.asked,
        "sent": row.sent,
        "late": row.late,
        "good": row.good,
        "shed": row.shed,
        "errors": row.errors,
        **percentiles(row.latency),
        "buckets": row.latency.as_json()["buckets"],
    }


class Percentiles(TypedDict):
    """Milliseconds that answers took; None where there was no answer."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    mean_ms: float | None


def percentiles(latency: Histogram) -> Percentiles:
    def milliseconds(value: float | None) -> float | None:
        return None if value is None else round(value * 1000, 3)

    return {
        "p50_ms": milliseconds(latency.percentile(50)),
        "p95_ms": milliseconds(latency.percentile(95)),
        "p99_ms": milliseconds(latency.percentile(99)),
        "max_ms": milliseconds(latency.largest if latency.count else None),
        "mean_ms": milliseconds(latency.mean()),
    }


def route_as_json(route: Route) -> dict[str, Any]:
    return {
        "requests": route.requests,
        "good": route.good,
        "shed": route.shed,
        "errors": route.errors,
        "errors_by_kind": _sorted(route.kinds),
        "bytes": route.bytes,
        **percentiles(route.latency),
    }


def _sorted(kinds: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))
