"""How much memory a worker has, and what happens when that is more than its limit."""

from collections.abc import Callable
from typing import Protocol

import psutil

from .. import clock
from ..gunicorns_parts import Log

# A failure that comes each time is logged this often.
SAY_AGAIN_SECONDS = 60.0


class MemoryLine(Protocol):
    """A worker's line on the scoreboard."""

    rss_bytes: int


class MemoryLimit:
    """Of the worker `pid`; `limit_bytes`: 0 is none; `over` is called with the bytes each time that they are more."""

    def __init__(self, pid: int, line: MemoryLine, limit_bytes: int, over: Callable[[int], object], log: Log) -> None:
        self.pid = pid
        self.line = line
        self.limit_bytes = limit_bytes
        self.over = over
        self.log = log
        self._say_after = 0.0

    def look(self) -> None:
        """Runs on: main greenlet, about once a second. No descriptor left, no /proc: then nothing is known for now."""
        try:
            rss_bytes = psutil.Process().memory_info().rss
        except (OSError, psutil.Error) as exc:
            if clock.now() >= self._say_after:
                self._say_after = clock.now() + SAY_AGAIN_SECONDS
                why = "there is no /proc here" if isinstance(exc, psutil.NoSuchProcess) else exc
                self.log.warning("how much memory worker %s has can't be told: %s", self.pid, why)
            return
        self.line.rss_bytes = rss_bytes
        if 0 < self.limit_bytes < rss_bytes:
            self.over(rss_bytes)
