"""How loaded one worker is: the turns of its loop, and the time that requests hold it.

    poll ──> begin ──> what is ready: timers, sockets ──> new requests, ──> callbacks ──> end ──> poll
             check watcher,                               the line                        prepare watcher,
             first                                        check watcher, last             last

lag   how long a greenlet that is ready waits until it runs: at most one turn. So the length of the last turn says what
      those met that became ready in it, and the length of this one so far what those meet who become ready now.
slice one uninterrupted run of a request's greenlet, from the hub's switch into it until the switch back.

Slices are measured on the wall clock. A request that blocks the loop without using the CPU (a C library that knows
nothing of greenlets), or whose core was given to somebody else, keeps all others waiting exactly as one that computes.
And reading the clock takes 0.1 microseconds where reading the thread's CPU time, a system call, takes 0.5.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from greenlet import greenlet

from .. import clock

if TYPE_CHECKING:
    from gevent._types import _Loop

# libev runs the watchers of one phase by priority, from 2 down to -2. gevent's own are in the middle.
FIRST, LAST = 2, -2


class Running(Protocol):
    """A request that runs, as a meter sees it."""

    promised_seconds: float  # of what it was expected to need, not used yet
    spent_seconds: float

    @property
    def dead(self) -> bool: ...


class Meter(Protocol):
    """The callee that is told of each slice, when it is over."""

    def admit(self) -> None: ...

    def began(self, request: Any, seconds: float) -> None: ...

    def ran(self, request: Any, seconds: float) -> None: ...


class RequestGreenlet(greenlet):
    """A request's greenlet, which measures its slices.

    gevent resumes greenlets through their attributes `switch` and `throw`; that this is so, and that nothing is
    missed, a test holds fast. Measured against `greenlet.settrace`: 0.5 against 0.9 microseconds a slice, and only for
    requests.

    `dead` says that its request is over, in place of greenlet's own: it may serve another one (see greenlets.py).
    """

    __slots__ = ("dead", "meter", "promised_seconds", "spent_seconds")

    dead: bool
    meter: Meter
    promised_seconds: float
    spent_seconds: float

    def switch(self, *args: Any) -> Any:
        began = clock.now()
        try:
            return plain_switch(self, *args)
        finally:
            self.meter.ran(self, clock.now() - began)

    def throw(self, *args: Any) -> Any:
        began = clock.now()
        try:
            return plain_throw(self, *args)
        finally:
            self.meter.ran(self, clock.now() - began)


plain_switch = greenlet.switch
plain_throw = greenlet.throw


def leave_to_parent() -> None:
    """In a forked child: what runs there is no request."""
    for name, plain in (("switch", plain_switch), ("throw", plain_throw)):
        setattr(RequestGreenlet, name, plain)


def run_metered(request: RequestGreenlet, meter: Meter, *args: Any) -> None:
    """Start `request`, which runs until it first waits. Not by its own `switch`: most requests have but one slice."""
    request.meter = meter
    meter.admit()
    began = clock.now()
    plain_switch(request, *args)
    meter.began(request, clock.now() - began)


# A turn after a pause this short found what had come while the loop was busy, or what makes it turn again and again;
# one this short can't have done much.
PAUSE_SECONDS = 0.0001
SHORT_SECONDS = 0.0002


class Turns:
    """Measures the turns of a loop and tells whoever is concerned. Costs under a microsecond a turn.

    `began` is called with the seconds that the loop has just been idle; `ending` when all that was ready has run.
    `progress` counts what the loop is there for; `empty` are the turns without any (see spinning). Runs on: hub.
    """

    def __init__(
        self,
        loop: "_Loop",
        began: Callable[[float], None],
        ending: Callable[[], None],
        progress: Callable[[], float] = lambda: 0.0,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.now = now
        self.began = began
        self.ending = ending
        self.progress = progress
        self.empty = 0
        self.empty_seconds = 0.0
        self._progress = 0.0
        self._paused = 0.0
        self.count = 0
        self.busy_seconds = 0.0
        self.idle_seconds = 0.0
        self.last_seconds = 0.0  # the length of the last turn: the lag that was
        self.began_at = self.ended_at = now()  # while the loop waits, the end is later
        self._watchers = (
            (loop.check(ref=False, priority=FIRST), self.begin),
            (loop.check(ref=False, priority=LAST), ending),
            (loop.prepare(ref=False, priority=LAST), self.end),
        )

    def start(self) -> None:
        self.began_at = self.ended_at = self.now()
        for watcher, callback in self._watchers:
            watcher.start(callback)

    def stop(self) -> None:
        for watcher, _ in self._watchers:
            watcher.stop()

    def begin(self) -> None:
        self.began_at = now = self.now()
        self._paused = idle = now - self.ended_at
        self.idle_seconds += idle
        self.began(idle)

    def end(self) -> None:
        self.ended_at = now = self.now()
        self.count += 1
        self.last_seconds = took = now - self.began_at
        self.busy_seconds += took
        if took < SHORT_SECONDS and self._paused < PAUSE_SECONDS:
            progress, self._progress = self._progress, self.progress()
            if progress == self._progress:
                self.empty += 1
                self.empty_seconds += took + self._paused

    def lag_seconds(self) -> float:
        """How long what became ready lately waits, at least."""
        return max(self.last_seconds, self.now() - self.began_at)
