"""Since when each cause has been there, and what was there before: one incident has one beginning.

A cause that is gone for less than GONE_SECONDS has not ended: rates and counts flicker.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from .finding import OK

GONE_SECONDS = 20.0
MOST_PAST = 100


class Incidents:
    """Runs on: the collecting thread of the ops process."""

    def __init__(self) -> None:
        # By cause: (began, seen last, the sentence then, its level), in Unix time.
        self.going_on: dict[str, dict[str, Any]] = {}
        self.past: deque[dict[str, Any]] = deque(maxlen=MOST_PAST)

    def note(self, verdict: dict[str, Any], now: float) -> None:
        """Give each finding of this moment its `since`, in Unix time; what is there no more has ended."""
        for found in (verdict, *verdict.get("others", [])):
            if found["level"] == OK:
                found["since"] = None
                continue
            known = self.going_on.setdefault(found["cause"], {"cause": found["cause"], "began_at": now})
            known.update(seen_at=now, sentence=found["sentence"], level=found["level"])
            found["since"] = known["began_at"]
        for cause in [one for one, known in self.going_on.items() if now - known["seen_at"] > GONE_SECONDS]:
            ended = self.going_on.pop(cause)
            self.past.append({**ended, "ended_at": ended["seen_at"]})

    def listing(self) -> list[Mapping[str, Any]]:
        """What is over, the newest first."""
        return list(reversed(self.past))
