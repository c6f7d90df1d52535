"""What answered requests have left running, greenlets and threads: waited for when their worker stops, then ended.

Nothing is counted while the worker serves. Whatever a request starts has its record in its context, so one look at all
objects finds it, when the last client has been answered (10 ms for 100,000 objects). Not waited for are

    an executor's threads, while idle    they work for no request
    work of requests that came longer    what has not ended by now will not in the time that is left: a helper that some
    ago than the graceful timeout        library has started for good
    what a timer would start later       spawn_later()

Threads that are daemons count: a thread that a request's greenlet starts is one, whether its author said so or not.
"""

import gc
from collections import Counter
from collections.abc import Callable
from logging import Logger
from typing import Any

import gevent
from greenlet import GreenletExit, greenlet

from ..record import CURRENT, Record

# Requests that are named in one line of the log.
MOST_NAMED = 10


class Leftovers:
    """The work that requests which came after `since` have left behind. Runs on: main greenlet, while it drains."""

    def __init__(self, log: Logger, since: float) -> None:
        self.log = log
        self.since = since
        self.found: dict[Any, Record] = {}
        self._are_ended = False

    def are_over(self) -> bool:
        """Whether none is left; looks anew when all that were found have ended, which may have started more."""
        self._forget_dead()
        if not self.found and not self._are_ended:
            self.found = left_behind(self.since)
            if self.found:
                self.log.info("Waiting for %s", self._text())
        return not self.found

    def end(self) -> None:
        """Raise GreenletExit in them; how long their clean-up may take is the caller's to decide."""
        self._forget_dead()
        if self._are_ended or not self.found:
            return
        self._are_ended = True
        self.log.warning("%s were ended: the worker has to stop", self._text())
        for left in self.found:
            gevent.get_hub().loop.run_callback(left.throw, GreenletExit)

    def _forget_dead(self) -> None:
        self.found = {left: record for left, record in self.found.items() if not left.dead}

    def _text(self) -> str:
        counts = Counter(" ".join(record.asked) or "a request" for record in self.found.values())
        asked = ", ".join(f"{asked} ({count})" for asked, count in counts.most_common(MOST_NAMED))
        return f"{len(self.found)} greenlets left behind by {asked}"


def left_behind(since: float, get_objects: Callable[[], list[Any]] = gc.get_objects) -> dict[Any, Record]:
    """Greenlets that go on though the requests they work for are over, for requests that came after `since`."""
    found = {}
    for thing in get_objects():
        # Not isinstance(): it asks proxies for the class of what they stand for.
        if issubclass(type(thing), greenlet):
            record = _record_of(thing)
            if record is not None and record.is_over and record.arrived >= since:
                found[thing] = record
    return found


def _record_of(left: Any) -> Record | None:
    """The request that a greenlet works for, if it has begun and goes on."""
    try:
        # greenlet's own truth: has begun, and goes on. gevent's says that something is scheduled.
        if not greenlet.__bool__(left) or left.gr_context is None:
            return None
        record: Record | None = left.gr_context.get(CURRENT)
        return record
    except ValueError:  # it runs in another thread; or is in C code alone, which greenlet takes for the same
        return None
