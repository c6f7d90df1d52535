"""Finding the highest rate at which what is expected holds.

    double      from `start` until a rate does not hold                     low held, high did not
    bisect      the geometric middle, until high <= low * (1 + precision)
    confirm     the highest that held and the lowest that did not are tried again, `repeats` times each; each counts by
                majority, and one that turns out otherwise moves the edge one step
    hold        80 % of the capacity, for longer: must hold, or the capacity is lowered by a tenth and held again
    spike       3x for a moment, then 50 % until it holds again: goodput, and seconds to recover

A rate at which less than 95 % of what was asked is answered well does not hold, whatever else was expected, nor does
one at which the line grows: with capacity C and rate r, latency grows by r / C - 1 seconds in each second, which a
short trial hides in its percentiles. More than 1 % of growth, if it is a fifth of the latency too, is such a line.

Nothing here knows sockets or clocks: `measure(rate, seconds)` runs a trial. A simulated server makes all of it exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

LEAST_GOOD_SHARE = 0.95
MOST_GROWTH, MOST_DRIFT_SHARE = 0.01, 0.2
HIGHEST_RATE = 1_000_000.0
HOLD_SHARE = 0.8
SPIKE_FACTOR = 3.0
RECOVERY_SHARE = 0.5
MOST_HOLDS = 4


@dataclass(frozen=True)
class Trial:
    """The outcome of one rate. `is_valid` is False when the generator was the limit; `p50` is in seconds."""

    rate: float
    good_per_second: float
    held: bool
    is_valid: bool = True
    p50: float | None = None
    p99: float | None = None
    said: Any = None


class Measure(Protocol):
    def __call__(self, rate: float, seconds: float) -> Trial:
        """Ask at a rate for so long, after a warm-up. Raises Interrupted."""


class Interrupted(Exception):
    """Ctrl-C: what was found so far is told."""


@dataclass
class Capacity:
    """`low` held and `high` did not: the capacity is between them. Without `high` nothing was too much."""

    low: float = 0.0
    high: float | None = None
    trials: list[Trial] = field(default_factory=list)
    held_at: float | None = None
    hold: Trial | None = None
    spike: Trial | None = None
    recovery_seconds: float | None = None
    is_valid: bool = True
    was_interrupted: bool = False

    @property
    def per_second(self) -> float | None:
        """The highest rate that held; None when none did."""
        return self.low if self.low > 0 else None

    @property
    def noise_ratio(self) -> float | None:
        """How much the median latency differed between trials of the same rate: what this machine does by itself."""
        spreads = []
        for rate in {trial.rate for trial in self.trials}:
            same = [trial.p50 for trial in self.trials if trial.rate == rate and trial.p50]
            if len(same) > 1:
                spreads.append((max(same) - min(same)) / (sum(same) / len(same)))
        return max(spreads) if spreads else None

    @property
    def knee_per_second(self) -> float | None:
        """The lowest rate tried at which the median latency was twice what it was unloaded."""
        known = sorted((trial.rate, trial.p50) for trial in self.trials if trial.p50 is not None)
        if not known:
            return None
        unloaded = known[0][1]
        return next((rate for rate, p50 in known if p50 > 2 * unloaded), None)


@dataclass(frozen=True)
class Search:
    """How it is searched. `say` is told each trial."""

    start: float = 10.0
    highest: float = HIGHEST_RATE
    precision: float = 0.04
    seconds: float = 5.0
    hold_seconds: float = 10.0
    spike_seconds: float = 3.0
    recovery_limit_seconds: float = 30.0
    repeats: int = 2
    say: Callable[[str, Trial], None] = lambda phase, trial: None


def find(measure: Measure, search: Search, *, thorough: bool = True) -> Capacity:
    """Search the capacity; interrupted, return what was found until then. Not `thorough`: look for the edge only."""
    found = Capacity()
    try:
        _find(measure, search, found, thorough=thorough)
    except Interrupted:
        found.was_interrupted = True
    return found


def _find(measure: Measure, search: Search, found: Capacity, *, thorough: bool) -> None:
    def tried(phase: str, rate: float, seconds: float = search.seconds) -> Trial:
        trial = measure(rate, seconds)
        found.trials.append(trial)
        search.say(phase, trial)
        return trial

    _double(tried, search, found)
    if not found.is_valid and found.high is None:
        return
    _bisect(tried, search, found)
    _confirm(tried, search, found)
    if found.low <= 0 or not thorough:
        return
    _hold(tried, search, found)
    _spike(tried, search, found)


Tried = Callable[..., Trial]


def _double(tried: Tried, search: Search, found: Capacity) -> None:
    rate = search.start
    while True:
        trial = tried("doubling", rate)
        if not trial.is_valid:
            # The generator has met its own limit: the server's lies above what it can be asked.
            again = tried("doubling", rate)
            if not again.is_valid:
                found.is_valid = False
                return
            trial = again
        if not trial.held:
            found.high = rate
            break
        found.low = rate
        if rate >= search.highest:
            return
        rate = min(rate * 2, search.highest)
    while found.low == 0 and found.high > search.start / 1024:
        # Not even the first held: look below.
        trial = tried("halving", found.high / 2)
        if trial.held:
            found.low = trial.rate
        else:
            found.high = trial.rate


def _bisect(tried: Tried, search: Search, found: Capacity) -> None:
    while found.high is not None and found.low > 0 and found.high > found.low * (1 + search.precision):
        rate = math.sqrt(found.low * found.high)
        if tried("bisecting", rate).held:
            found.low = rate
        else:
            found.high = rate


def _confirm(tried: Tried, search: Search, found: Capacity) -> None:
    """Noise may have made one trial good or bad by chance: the edge is tried again, and moves if it was."""
    step = 1 + search.precision
    for _ in range(MOST_HOLDS):
        if found.low <= 0 or found.high is None:
            return
        if not _majority(tried, search, found, found.low):
            found.high, found.low = found.low, found.low / step
        elif _majority(tried, search, found, found.high):
            found.low, found.high = found.high, found.high * step
        else:
            return


def _majority(tried: Tried, search: Search, found: Capacity, rate: float) -> bool:
    def votes() -> list[bool]:
        return [trial.held for trial in found.trials if trial.rate == rate and trial.is_valid]

    for _ in range(max(0, search.repeats + 1 - len(votes()))):
        before = votes()
        needed = (search.repeats + 1) // 2 + 1
        if before.count(True) >= needed or before.count(False) >= needed:
            break
        tried("confirming", rate)
    said = votes()
    return said.count(True) * 2 > len(said)


def _hold(tried: Tried, search: Search, found: Capacity) -> None:
    for _ in range(MOST_HOLDS):
        rate = found.low * HOLD_SHARE
        found.hold = tried("holding 80 %", rate, search.hold_seconds)
        found.held_at = rate
        if found.hold.held:
            return
        found.high, found.low = found.low, found.low * 0.9


def _spike(tried: Tried, search: Search, found: Capacity) -> None:
    found.spike = tried("three times as much", found.low * SPIKE_FACTOR, search.spike_seconds)
    passed = 0.0
    while passed < search.recovery_limit_seconds:
        if tried("recovering", found.low * RECOVERY_SHARE, 1.0).held:
            found.recovery_seconds = passed
            return
        passed += 1.0


def is_growing(latencies: Sequence[float | None]) -> bool:
    """Whether the line grows; of the median latency (seconds) of each second of a trial.

    It has to grow to the end: a server that is slower once it is under load does not make a line.
    """
    known = [value for value in latencies if value is not None]
    if len(known) < 2:
        return False
    third = max(1, len(known) // 3)
    seconds = len(known) - third
    first, middle, last = (sum(known[at : at + third]) / third for at in (0, seconds // 2, seconds))
    is_still_growing = last - middle > MOST_GROWTH * (seconds - seconds // 2)
    return is_still_growing and last - first > max(MOST_GROWTH * seconds, MOST_DRIFT_SHARE * first)


def as_json(found: Capacity) -> dict[str, Any]:
    return {
        "per_second": _rounded(found.per_second),
        "between": [_rounded(found.low), _rounded(found.high)],
        "knee_per_second": _rounded(found.knee_per_second),
        "noise_ratio": _rounded(found.noise_ratio),
        "held_80_percent": found.hold.held if found.hold is not None else None,
        "goodput_at_3x_per_second": _rounded(found.spike.good_per_second) if found.spike is not None else None,
        "recovery_seconds": found.recovery_seconds,
        "interrupted": found.was_interrupted,
        "trials": [
            {
                "asked_per_second": _rounded(trial.rate),
                "good_per_second": _rounded(trial.good_per_second),
                "held": trial.held,
                "valid": trial.is_valid,
                "p50_ms": _milliseconds(trial.p50),
                "p99_ms": _milliseconds(trial.p99),
            }
            for trial in found.trials
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def lines(found: Capacity) -> Sequence[str]:
    """The outcome in words."""
    if found.per_second is None:
        return ["no rate held: what is expected is more than the target can do even when it is hardly asked"]
    said = [f"capacity {found.per_second:.4g}/s" + (f" (held; {found.high:.4g}/s did not)" if found.high else "")]
    if found.high is None:
        said.append("  the target held at every rate that was tried; its own limit lies above")
    if found.knee_per_second is not None:
        said.append(f"  knee: from {found.knee_per_second:.4g}/s on the median latency is twice what it is unloaded")
    if found.hold is not None and found.held_at is not None:
        said.append(f"  80 %, {found.held_at:.4g}/s: {'held' if found.hold.held else 'did not hold'}")
    if found.spike is not None:
        said.append(
            f"  three times as much, {found.spike.rate:.4g}/s: {found.spike.good_per_second:.4g}/s were answered well"
        )
        after = found.recovery_seconds
        said.append("  recovered " + ("not within the time waited" if after is None else f"within {after + 1:.0f} s"))
    if found.noise_ratio is not None:
        said.append(f"  noise: medians of the same rate differ by {found.noise_ratio:.0%}")
    if found.was_interrupted:
        said.append("  interrupted: this is what was found until then")
    return said
