"""Pauses by the garbage collector: it stops the loop at whatever line happens to make one object too many."""

import gc
from collections import deque
from collections.abc import Callable
from typing import Any

from .. import clock


class Garbage:
    """`long` are the last collections that took longer than `long_seconds`. Runs on: the thread that collects."""

    def __init__(self, long_seconds: float, now: Callable[[], float] = clock.now) -> None:
        self.long_seconds = long_seconds
        self.now = now
        self.count = 0
        self.seconds = self.longest_seconds = 0.0
        self.long: deque[tuple[float, float]] = deque(maxlen=8)
        self._since = 0.0

    def start(self) -> None:
        gc.callbacks.append(self.collecting)

    def stop(self) -> None:
        if self.collecting in gc.callbacks:
            gc.callbacks.remove(self.collecting)

    def collecting(self, phase: str, info: dict[str, int]) -> None:
        """Told by the garbage collector, in the thread that it stops."""
        now = self.now()
        if phase == "start":
            self._since = now
            return
        took = now - self._since
        self.count += 1
        self.seconds += took
        if took > self.longest_seconds:
            self.longest_seconds = took
        if took > self.long_seconds:
            self.long.append((self._since, now))

    def seconds_between(self, began: float, ended: float) -> float:
        """How much of this time long collections took."""
        return sum(min(end, ended) - start for start, end in list(self.long) if began <= start < ended)

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "seconds": self.seconds, "longest_seconds": self.longest_seconds}
