"""How long code of a test runs without letting anybody else run, and the line where it does.

Between two switches of greenlets nothing else moves: no other request, no timer. A real thread looks at the main
thread from time to time and remembers its innermost line of the application; the switch that ends the run says how long
it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
import greenlet

from .. import clock
from ..insight import safepoint
from ..insight.stacks import Stack
from ..waits.threads import get_thread_ident, start_thread

# So often in the time that is allowed the thread looks.
LOOKS = 4
real_sleep: Callable[[float], None] = gevent.monkey.get_original("time", "sleep")


@dataclass
class Run:
    """One uninterrupted run that took too long. `where` is `file:line in function`, "" when nobody saw it."""

    seconds: float
    where: str


class Slices:
    """`with Slices(0.05, is_ours) as slices: ...` and then `slices.longest`, None where all were short enough."""

    def __init__(self, allowed_seconds: float, is_ours: Callable[[str], bool]) -> None:
        self.allowed_seconds = allowed_seconds
        self.is_ours = is_ours
        self.longest: Run | None = None
        self._began = clock.now()
        self._where = ""
        self._is_idle = False
        self._ident = get_thread_ident()
        self._is_on = False

    def __enter__(self) -> "Slices":
        self._is_on = True
        self._before: Any = greenlet.settrace(self._switched)
        self._began = clock.now()
        start_thread(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._end_run()
        self._is_on = False
        greenlet.settrace(self._before)

    def _switched(self, event: str, arguments: Any) -> None:
        """Runs on: whoever switches."""
        self._end_run()
        self._is_idle = arguments[1] is gevent.get_hub()
        if self._before is not None:
            self._before(event, arguments)

    def _end_run(self) -> None:
        now = clock.now()
        seconds = now - self._began
        is_longest = seconds > self.allowed_seconds and (self.longest is None or seconds > self.longest.seconds)
        if is_longest and not self._is_idle:
            self.longest = Run(seconds, self._where)
        self._began, self._where = now, ""

    def _look(self) -> None:
        """Runs on: a real thread."""
        while self._is_on:
            real_sleep(self.allowed_seconds / LOOKS)
            began = self._began
            if self._is_idle or clock.now() - began < self.allowed_seconds / 2:
                continue
            # In C: what is seen of frames from another thread must not be followed while greenlets switch.
            where = self._line(safepoint.stack_in_c(self._ident))
            if began == self._began and where:
                self._where = where

    def _line(self, stack: Stack) -> str:
        return next((f"{file}:{line} in {function}" for file, line, function in stack if self.is_ours(file)), "")
