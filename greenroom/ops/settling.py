"""Verdicts that stand: no effect is told before its cause could be known, and none comes and goes with each second.

Requests wait for an upstream half a second before that is called slow, and for three seconds before it is said that it
answers nobody. What may be the effect of something else (see verdicts.EFFECTS) is therefore told when it has been seen
for `SURE_SECONDS`, and so is that somebody answers nobody. Facts are told at once: a worker is blocked, or has died.

Clients that began together also wait together: in one second all have waited for long, in the next one all begin anew.
So what is known from what requests, or the loop's ready greenlets, wait for in this moment stays for `STAYS_SECONDS`
after it was last seen.
"""

from dataclasses import dataclass
from typing import Any, cast

from .shapes import Verdict, View
from .verdicts import EFFECTS, LEVELS, OK, Finding, in_order

SURE_SECONDS = 3.0
STAYS_SECONDS = 4.0
WAITS = {"upstream", "query", "lock", "pool", "held", "dns", "offload", "other", "lock_held", "semaphore", "executor"}
LAGS = {"cpu", "robbed", "throttled"}
OF_THIS_MOMENT = frozenset(WAITS | LAGS)
# Nobody has been answered yet, and in the next second somebody may be.
UNSURE = EFFECTS | {"database_silent", "upstream_silent"}


@dataclass
class _Known:
    first_seen: float
    last_seen: float
    finding: Finding  # the worst of the last STAYS_SECONDS
    found_at: float


class Settling:
    """Runs on: the collecting thread."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def settle(self, seen: View, now: float) -> Verdict:
        """The verdict of this view, with what is sure by now. `now` is the monotonic clock."""
        verdict: Any = seen["verdict"]
        found = [{name: value for name, value in verdict.items() if name not in ("at", "others")}, *verdict["others"]]
        told = [one if one["level"] == OK else self._note(one, now) for one in found]
        self._known = {cause: one for cause, one in self._known.items() if now - one.last_seen <= STAYS_SECONDS}
        sure = [one for one in told if one["level"] == OK or self._is_sure(one["cause"])]
        gone = set(self._known) - {one["cause"] for one in told if one["level"] != OK}
        stays = [self._known[cause].finding for cause in sorted(gone & OF_THIS_MOMENT) if self._is_sure(cause)]
        if sure == found and not stays:
            return seen["verdict"]
        first, *others = in_order([one for one in [*sure, *stays] if one["cause"] != "healthy"], seen)
        settled: Any = {**first, "at": verdict["at"], "others": others}
        return cast("Verdict", settled)

    def _note(self, one: Finding, now: float) -> Finding:
        """Remember it, and return what is to be told: the worse one of a moment ago, if there is one."""
        known = self._known.get(one["cause"])
        if known is None:
            known = self._known[one["cause"]] = _Known(now, now, one, now)
        known.last_seen = now
        is_milder = LEVELS.index(one["level"]) > LEVELS.index(known.finding["level"])
        if not is_milder or one["cause"] not in OF_THIS_MOMENT or now - known.found_at > STAYS_SECONDS:
            known.finding, known.found_at = one, now
        return known.finding

    def _is_sure(self, cause: str) -> bool:
        known = self._known[cause]
        return cause not in UNSURE or known.last_seen - known.first_seen >= SURE_SECONDS
