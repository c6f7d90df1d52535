"""A histogram of latencies: three significant digits over any range, small, and mergeable.

    index(v) = v                           for v < 2048 microseconds
             = 1024 * s + (v >> s)         above, with s = bit_length(v) - 11

So each power of two has 1024 buckets, and a bucket is never wider than a thousandth of its value (the layout is that of
HdrHistogram with 11 bits of precision). Counts are kept sparse: a second of a run has a few hundred buckets.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

PRECISION_BITS = 11
_EXACT = 1 << PRECISION_BITS


def index_of(microseconds: int) -> int:
    """The bucket of a value."""
    if microseconds < _EXACT:
        return microseconds if microseconds > 0 else 0
    shift = microseconds.bit_length() - PRECISION_BITS
    return (shift << (PRECISION_BITS - 1)) + (microseconds >> shift)


def lowest_of(index: int) -> int:
    """The smallest value, in microseconds, that a bucket holds."""
    if index < _EXACT:
        return index
    shift = (index >> (PRECISION_BITS - 1)) - 1
    return (index - (shift << (PRECISION_BITS - 1))) << shift


def highest_of(index: int) -> int:
    """The largest value that a bucket holds: what percentiles say, so they never flatter."""
    return lowest_of(index + 1) - 1 if index >= _EXACT else index


class Histogram:
    """Counts by bucket, and exactly: how many, their sum, the smallest and the largest."""

    __slots__ = ("count", "counts", "largest", "smallest", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.total = 0.0
        self.largest = 0.0
        self.smallest = math.inf

    def record(self, value_seconds: float, times: int = 1) -> None:
        index = int(value_seconds * 1e6)  # index_of, written out: this runs for each request
        if index >= _EXACT:
            shift = index.bit_length() - PRECISION_BITS
            index = (shift << (PRECISION_BITS - 1)) + (index >> shift)
        elif index < 0:
            index = 0
        self.record_at(index, value_seconds, times)

    def record_at(self, index: int, value_seconds: float, times: int = 1) -> None:
        """As `record`, for those that know the bucket already because they record in several histograms."""
        counts = self.counts
        counts[index] = counts.get(index, 0) + times
        self.count += times
        self.total += value_seconds * times
        if value_seconds > self.largest:
            self.largest = value_seconds
        if value_seconds < self.smallest:
            self.smallest = value_seconds

    def merge(self, other: "Histogram") -> None:
        for index, times in other.counts.items():
            self.counts[index] = self.counts.get(index, 0) + times
        self.count += other.count
        self.total += other.total
        self.largest = max(self.largest, other.largest)
        self.smallest = min(self.smallest, other.smallest)

    def percentile(self, percent: float) -> float | None:
        """Seconds which `percent` of the values do not exceed; None of nothing."""
        if not self.count:
            return None
        wanted = max(1, math.ceil(self.count * percent / 100.0 - 1e-9))
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= wanted:
                return min(highest_of(index) / 1e6, self.largest)
        return self.largest

    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def above(self, limit_seconds: float) -> int:
        """How many values are surely above a limit."""
        limit = limit_seconds * 1e6
        return sum(times for index, times in self.counts.items() if lowest_of(index) > limit)

    def as_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "total_seconds": self.total,
            "smallest_seconds": self.smallest if self.count else None,
            "largest_seconds": self.largest,
            "buckets": [[index, self.counts[index]] for index in sorted(self.counts)],
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Histogram":
        found = cls()
        found.counts = {int(index): int(times) for index, times in said["buckets"]}
        found.count = int(said["count"])
        found.total = float(said["total_seconds"])
        found.largest = float(said["largest_seconds"])
        found.smallest = math.inf if said["smallest_seconds"] is None else float(said["smallest_seconds"])
        return found


def merged(histograms: Iterable[Histogram]) -> Histogram:
    whole = Histogram()
    for one in histograms:
        whole.merge(one)
    return whole
