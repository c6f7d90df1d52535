"""Timers that are used more than once.

gevent's `loop.timer(x)` lasts x the first time only. Stopped and started again it goes on from where it was; started
again after it fired it fires at once, and a loop that waits with it spins: libev's ev_timer_start counts from what
ev_timer_stop left. Only `again` (ev_timer_again) begins anew, and that one repeats. So a timer that is kept is one of
these; `loop.timer` is for those that are started once, and for those that repeat and are never stopped.
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gevent._types import _Loop  # of the stubs: gevent's own names its interface only in prose

# How often the loop has called each of our named callbacks in this process: timers, and the listeners. The search for
# the cause of a spinning loop reads it (see worker/spinning.py).
called: Counter[str] = Counter()


class Timer:
    """A timer of a loop, for many uses: each start lasts `seconds`, whole, whatever it did before.

    `repeats`: goes on until it is stopped. Runs on: hub, any greenlet of the loop's thread.
    """

    __slots__ = ("_arguments", "_callback", "_timer", "name", "repeats")

    def __init__(self, loop: "_Loop", seconds: float, name: str, *, repeats: bool = False, ref: bool = True) -> None:
        if seconds <= 0.0:
            raise ValueError(f"a timer that is used again lasts longer than {seconds!r} s")
        self.name = name
        self.repeats = repeats
        self._timer = loop.timer(0.0, repeat=seconds, ref=ref)
        self._callback: Callable[..., object] | None = None
        self._arguments: tuple[object, ...] = ()

    def start(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call `callback(*arguments)` in so many seconds from now; if it was running, only that."""
        self._callback, self._arguments = callback, arguments
        self._timer.again(self._fire, update=True)  # from now on, not from when the loop last looked at its clock

    def stop(self) -> None:
        self._callback, self._arguments = None, ()
        self._timer.stop()

    def close(self) -> None:
        self.stop()
        self._timer.close()

    @property
    def active(self) -> bool:
        return self._callback is not None

    def _fire(self) -> None:
        callback, arguments = self._callback, self._arguments
        called[self.name] += 1
        if not self.repeats:
            self.stop()
        if callback is not None:
            callback(*arguments)
