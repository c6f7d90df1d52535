"""Percentiles of histograms, and what the time of requests of about that length went into."""

from collections.abc import Mapping, Sequence
from typing import Any

from .shapes import Latency

# The share of the requests that a percentile leaves below it.
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def grown(now: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[list[float], dict[str, list[float]]]:
    """Buckets and bands of the requests since `before`."""
    bands = now.get("bands", {})
    old_bands = before.get("bands", {})
    return (
        less(now.get("buckets", []), before.get("buckets", [])),
        {index: less(seconds, old_bands.get(index, [])) for index, seconds in bands.items()},
    )


def less(now: Sequence[float], before: Sequence[float]) -> list[float]:
    before = before or [0.0] * len(now)
    return [max(0.0, new - old) for new, old in zip(now, before, strict=False)]


def latency(buckets: list[float], bands: Mapping[str, list[float]], bounds: Sequence[float | None]) -> Latency:
    """Percentiles, and for each of them the share of each state in requests that took about as long."""
    result: Any = {}
    for name, share in PERCENTILES.items():
        index, seconds = percentile(buckets, bounds, share)
        band = bands.get(str(index), []) if index is not None else []
        whole = sum(band)
        result[name] = seconds
        result[f"{name}_by_state"] = [part / whole for part in band] if whole else []
    found: Latency = result
    return found


def percentile(
    buckets: Sequence[float], bounds: Sequence[float | None], share: float
) -> tuple[int | None, float | None]:
    """The bucket in which a percentile lies, and its value, taken as even within the bucket; (None, None) of nothing.

    Of the last bucket, which has no upper bound, only the lower one is known.
    """
    wanted = share * sum(buckets)
    if not wanted:
        return None, None
    below = 0.0
    for index, count in enumerate(buckets):
        if count and below + count >= wanted:
            low = (bounds[index - 1] or 0.0) if index else 0.0
            high = bounds[index]
            return index, low if high is None else low + (high - low) * (wanted - below) / count
        below += count
    return None, None
