"""A loop that turns without doing anything: counted, and said with the name of what makes it turn.

It happens when something is ready again as soon as it was called: a timer that was started a second time and lasts
nothing (see greenroom.timers), a descriptor with an event that nobody takes. Everything works, only slower, and the
core is used up: nobody notices before the bill or the load comes.

    empty      a turn without a pause before it, shorter than SHORT_SECONDS, in which no request ran and no connection
               came
    spinning   EMPTY_SHARE of the thread's CPU time went into empty turns, in each of the last LOOKS looks

CPU time, and at least FLOOR_SHARE of the time that passed: where the core is given to others, too, a loop that does
nothing else may have a small share of what passed, and a loop that mostly waits needs next to none.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from .. import clock, timers
from .load import Turns

logger = logging.getLogger("gunicorn.error")

EMPTY_SHARE = 0.2
FLOOR_SHARE = 0.1
LOOKS = 4
REPORT_SECONDS = 10.0
# Of the empty turns, for a name to be the cause.
CAUSE_SHARE = 0.3


class SpinWatch:
    """Looks at the turns of a loop, with each sweep. Runs on: hub."""

    def __init__(
        self, turns: Turns, now: Callable[[], float] = clock.now, cpu: Callable[[], float] = time.thread_time
    ) -> None:
        self.turns = turns
        self.now = now
        self.cpu = cpu
        self.is_spinning = False
        self._looks = 0
        self._looked_at, self._used = now(), cpu()
        self._turns, self._seconds = turns.empty, turns.empty_seconds
        self._called: Counter[str] = Counter(timers.called)
        self._report_at = 0.0

    def look(self) -> None:
        now, turns = self.now(), self.turns
        passed, self._looked_at = now - self._looked_at, now
        used = self.cpu()
        own, self._used = max(used - self._used, FLOOR_SHARE * passed), used
        seconds, self._seconds = turns.empty_seconds - self._seconds, turns.empty_seconds
        if passed <= 0.0 or seconds < EMPTY_SHARE * own:
            self._looks, self.is_spinning = 0, False
            self._turns, self._called = turns.empty, Counter(timers.called)
            return
        self._looks += 1
        self.is_spinning = self._looks >= LOOKS
        if self.is_spinning and now >= self._report_at:
            self._report_at = now + REPORT_SECONDS
            self._report(turns.empty - self._turns)

    def _report(self, empty: int) -> None:
        called: Any = Counter(timers.called)
        called.subtract(self._called)
        name, count = max(called.items(), key=lambda item: item[1], default=("", 0))
        cause = f"called most often: {name}, {count} times" if count >= CAUSE_SHARE * empty else FOREIGN
        logger.warning("the loop turned %d times without doing anything; %s", empty, cause)
        self._turns, self._called = self.turns.empty, Counter(timers.called)


FOREIGN = (
    "nothing of the server's own makes it turn, so it is a timer, a socket or a greenlet outside of requests, of the "
    "application or one of its packages (`python -m greenroom stacks` lists greenlets)"
)
