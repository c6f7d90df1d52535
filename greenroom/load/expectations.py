"""Expectations of a run, as k6's thresholds: `p99<300ms`, `errors<0.1%`, `p95[search]<200ms`.

p50 p95 p99 p99.9 max mean   latency, from the planned moment           ms, s, us
errors shed good             share of all requests, or how many a second  %, /s
rate                         answers of any kind a second                 /s
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .histogram import Histogram
from .units import SECONDS, LoadError

_FORM = re.compile(
    r"\s*(?P<metric>[a-z]+[0-9.]*)\s*(?:[\[{](?P<route>[^\]}]*)[\]}])?\s*(?P<compare><=|>=|<|>|==|=)\s*"
    r"(?P<number>[0-9]*\.?[0-9]+)\s*(?P<unit>[^\s]*)\s*"
)
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
}
LATENCIES = ("max", "mean")
SHARES = ("errors", "shed", "good")
KNOWN = "p50 p95 p99 max mean rate errors shed good"


class Measured(Protocol):
    """The measurement an expectation is held against: a whole run, or one route of it."""

    @property
    def latency(self) -> Histogram: ...
    @property
    def requests(self) -> int: ...
    @property
    def good(self) -> int: ...
    @property
    def shed(self) -> int: ...
    @property
    def errors(self) -> int: ...


@dataclass(frozen=True)
class Expectation:
    """`limit` is in seconds for latencies, between 0 and 1 for shares, else a number a second."""

    text: str
    metric: str
    route: str
    compare: str
    limit: float
    is_per_second: bool = False

    @property
    def percent(self) -> float | None:
        """Which percentile it is about; None: none."""
        found = _PERCENTILE.fullmatch(self.metric)
        return float(found[1]) if found else None

    @property
    def is_latency(self) -> bool:
        return self.percent is not None or self.metric in LATENCIES

    @property
    def wants_less(self) -> bool:
        return self.compare in ("<", "<=")

    def value(self, measured: Measured, seconds: float, *, good_per_second: float | None = None) -> float | None:
        """Return the measured value; None when there was nothing to measure."""
        if self.is_latency:
            return self._latency(measured.latency)
        if self.metric == "rate":
            answered = measured.good + measured.shed + measured.errors
            return answered / seconds if seconds > 0 else None
        amount: int = getattr(measured, self.metric)
        if self.is_per_second:
            if self.metric == "good" and good_per_second is not None:
                return good_per_second
            return amount / seconds if seconds > 0 else None
        return amount / measured.requests if measured.requests else None

    def _latency(self, latency: Histogram) -> float | None:
        if self.percent is not None:
            return latency.percentile(self.percent)
        if self.metric == "max":
            return latency.largest if latency.count else None
        return latency.mean()

    def holds(self, value: float | None) -> bool:
        """Return whether the value meets the limit; never without a value."""
        return value is not None and _COMPARE[self.compare](value, self.limit)

    def cannot_hold(self, so_far: Measured, planned: int) -> bool:
        """Whether it fails even if all that is still to come were as good as can be. Of `planned` requests in all."""
        if not self.wants_less:
            if self.metric == "good" and not self.is_per_second:
                return so_far.errors + so_far.shed > (1.0 - self.limit) * planned
            return False
        if self.percent is not None:
            return so_far.latency.above(self.limit) > (1.0 - self.percent / 100.0) * planned
        if self.metric == "max":
            return so_far.latency.above(self.limit) > 0
        if self.metric == "mean":
            return so_far.latency.total > self.limit * planned
        if self.metric in SHARES and not self.is_per_second:
            return bool(getattr(so_far, self.metric) > self.limit * planned)
        return False


def parse(text: str) -> Expectation:
    """Raises LoadError, which says what is missing: the unit, most often."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise LoadError(f"--expect {text!r} is not understood: write 'p99<300ms', 'errors<0.1%' or 'rate>190/s'")
    metric, number, unit = found["metric"], float(found["number"]), found["unit"]
    route, compare = (found["route"] or "").strip(), found["compare"]
    if _PERCENTILE.fullmatch(metric) or metric in LATENCIES:
        if unit not in SECONDS:
            raise LoadError(_which_unit(text, metric, compare, found["number"], unit, ("ms", "s")))
        return Expectation(text.strip(), metric, route, compare, number * SECONDS[unit])
    if metric in SHARES and (unit == "%" or (not unit and number == 0)):
        return Expectation(text.strip(), metric, route, compare, number / 100.0)
    if metric in (*SHARES, "rate"):
        if unit != "/s":
            units = ("/s",) if metric == "rate" else ("%", "/s")
            raise LoadError(_which_unit(text, metric, compare, found["number"], unit, units))
        return Expectation(text.strip(), metric, route, compare, number, is_per_second=True)
    raise LoadError(f"--expect {text!r}: there is no {metric!r}; what can be expected is {KNOWN}")


def _which_unit(text: str, metric: str, compare: str, number: str, unit: str, units: tuple[str, ...]) -> str:
    said = f"{unit!r} is no unit of {metric}; write" if unit else "which unit? Write"
    return f"--expect {text!r}: {said} " + " or ".join(f"{metric}{compare}{number}{one}" for one in units)
