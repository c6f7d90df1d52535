"""Verdicts that stand: no effect is told before its cause could be known, and none comes and goes with each second.

Requests wait for an upstream half a second before that is called slow, and for three seconds before it is said that it
answers nobody. What may be the effect of something else (see verdicts.EFFECTS) is therefore told when it has been seen
for `SURE_SECONDS`; facts, such as a worker that is blocked or has died, at once.

Clients that began together also wait together: in one second all have waited for long, in the next one all begin anew.
So what is known from what requests wait for in this moment stays for `STAYS_SECONDS` after it was last seen.
"""

from dataclasses import dataclass
from typing import Any, cast

from .shapes import Verdict, View
from .verdicts import EFFECTS, OK, Finding, in_order

SURE_SECONDS = 3.0
STAYS_SECONDS = 4.0
OF_THIS_MOMENT = frozenset({"upstream", "query", "lock", "pool", "held", "dns", "offload", "other"})


@dataclass
class _Known:
    first_seen: float
    last_seen: float
    finding: Finding


class Settling:
    """Runs on: the collecting thread."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def settle(self, seen: View, now: float) -> Verdict:
        """The verdict of this view, with what is sure by now. `now` is the monotonic clock."""
        verdict: Any = seen["verdict"]
        found = [{name: value for name, value in verdict.items() if name not in ("at", "others")}, *verdict["others"]]
        for one in found:
            if one["level"] != OK:
                known = self._known.get(one["cause"])
                self._known[one["cause"]] = _Known(now if known is None else known.first_seen, now, one)
        self._known = {cause: one for cause, one in self._known.items() if now - one.last_seen <= STAYS_SECONDS}
        sure = [one for one in found if one["level"] == OK or self._is_sure(one["cause"])]
        gone = set(self._known) - {one["cause"] for one in found if one["level"] != OK}
        stays = [self._known[cause].finding for cause in sorted(gone & OF_THIS_MOMENT) if self._is_sure(cause)]
        if len(sure) == len(found) and not stays:
            return seen["verdict"]
        first, *others = in_order([one for one in [*sure, *stays] if one["cause"] != "healthy"], seen)
        settled: Any = {**first, "at": verdict["at"], "others": others}
        return cast("Verdict", settled)

    def _is_sure(self, cause: str) -> bool:
        known = self._known[cause]
        return cause not in EFFECTS or known.last_seen - known.first_seen >= SURE_SECONDS
