"""`greenroom load --find-capacity`: trials on the real target, for `capacity` to search with."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from . import arrivals, capacity, expectations
from .capacity import Capacity, Interrupted, Search, Trial
from .plan import Plan
from .result import Result
from .session import Session
from .target import tls_context
from .units import LoadError, written

# Expectations that always hold, unless the user gave one of the same measure.
ALWAYS = ("errors<1%", "shed<1%")
SETTLE_SECONDS = 10.0
SETTLED_FACTOR, SETTLED_SECONDS = 3.0, 0.050
PAUSE_SECONDS = 0.1

Perform = Callable[[Plan], Result]


class Trials:
    """Runs trials of a plan; `results` has the whole result of each."""

    def __init__(self, plan: Plan, perform: Perform, now: Callable[[], float] = time.perf_counter) -> None:
        named = {one.metric for one in plan.expectations}
        always = [one for one in map(expectations.parse, ALWAYS) if one.metric not in named]
        self.plan = replace(plan, expectations=(*plan.expectations, *always), users=0)
        self.results: list[tuple[Trial, Result]] = []
        self._perform = perform
        self._now = now
        self._unloaded: float | None = None

    def measure(self, rate: float, seconds: float) -> Trial:
        """Ask at this rate for so long, and return how it went. Raises Interrupted on Ctrl-C."""
        seconds = max(seconds, min(30.0, 20.0 / rate))  # a few requests say nothing
        plan = replace(self.plan, shape=arrivals.constant(rate, seconds))
        if not self.results:
            self._warm_up(rate)
        said = self._perform(plan)
        if said["stopped"]:
            raise Interrupted
        trial = trial_of(said, rate)
        self.results.append((trial, said))
        if self._unloaded is None and trial.p50 is not None:
            self._unloaded = trial.p50
        if not trial.held:
            self._settle()
        return trial

    def _warm_up(self, rate: float) -> None:
        """First requests pay for imports, connections and caches: they are asked for and not counted."""
        said = self._perform(replace(self.plan, shape=arrivals.constant(max(1.0, rate), 1.0)))
        if said["stopped"]:
            raise Interrupted

    def _settle(self) -> None:
        """Wait until the server is rid of what it was left with."""
        tls = None
        if self.plan.target.is_tls:
            tls = tls_context(verify=self.plan.verify, ca_file=self.plan.ca_file)
        session = Session(self.plan.target, SETTLE_SECONDS, tls)
        enough = max(SETTLED_SECONDS, SETTLED_FACTOR * (self._unloaded or 0.0))
        give_up_at = self._now() + SETTLE_SECONDS
        while self._now() < give_up_at:
            began = self._now()
            try:
                session.get(self.plan.target.path)
            except LoadError:
                time.sleep(PAUSE_SECONDS)
                continue
            if self._now() - began <= enough:
                return
            time.sleep(PAUSE_SECONDS)


def trial_of(said: Result, rate: float) -> Trial:
    medians = [row["p50_ms"] / 1000 if row["p50_ms"] is not None else None for row in said["seconds"] if row["asked"]]
    held = (
        bool(said["held"])
        and said["good_per_second"] >= capacity.LEAST_GOOD_SHARE * (said["asked_per_second"] or 0.0)
        and not capacity.is_growing(medians)
    )
    return Trial(
        rate, said["good_per_second"], held, bool(said["valid"]), _seconds(said["p50_ms"]), _seconds(said["p99_ms"])
    )


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def search_of(seconds: float | None, highest: float, say: Callable[[str, Trial], None]) -> Search:
    """`seconds` is how long each trial takes; the others follow from it."""
    each = seconds or Search.seconds
    return Search(
        seconds=each, highest=highest, hold_seconds=2 * each, spike_seconds=min(each, Search.spike_seconds), say=say
    )


def find(plan: Plan, search: Search, perform: Perform, *, thorough: bool = True) -> tuple[Capacity, Result]:
    """The capacity, and the result to report: that of the highest rate that held, with the limit seen above it.

    Not `thorough`: without holding 80 % and the spike. Raises LoadError when nothing was measured at all.
    """
    trials = Trials(plan, perform)
    found = capacity.find(trials.measure, search, thorough=thorough)
    if not trials.results:
        raise LoadError("interrupted before anything was measured")
    said = _reported(found, trials.results).copy()
    above = [result for trial, result in trials.results if not trial.held and trial.is_valid]
    near = [result for result in above if (result["asked_per_second"] or 0.0) <= 1.5 * (found.low or float("inf"))]
    said["limited_by"] = next((one["limited_by"] for one in [*near, *above] if one["limited_by"]), said["limited_by"])
    said["capacity_per_second"] = _rounded(found.per_second)
    said["capacity"] = capacity.as_json(found)
    said["valid"] = found.is_valid
    said["held"] = found.per_second is not None
    if not found.is_valid:
        said["problems"] = said["problems"] or [
            f"the generator could not ask for more than {found.low:.4g}/s: spread the load over more processes with "
            "--locustfile"
        ]
    return found, said


def _reported(found: Capacity, results: Sequence[tuple[Trial, Result]]) -> Result:
    """The longest trial at the rate found, or the best there is."""
    at_capacity = [said for trial, said in results if trial.rate == found.low and trial.held]
    held = [said for trial, said in results if trial.held]
    return (at_capacity or held or [said for _, said in results])[-1]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def line(phase: str, trial: Trial) -> str:
    p99 = "-" if trial.p99 is None else written(trial.p99)
    verdict = "held" if trial.held else "did not hold"
    valid = "" if trial.is_valid else " (the generator was the limit)"
    return f"{phase:20} {trial.rate:10.4g}/s  good {trial.good_per_second:.4g}/s  p99 {p99}  {verdict}{valid}"
