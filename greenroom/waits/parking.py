"""Waiting until somebody wakes you, in whatever thread he or you are.

    a greenlet          switches to its loop; who wakes it from another thread does so through the loop's own watcher
    a real thread       blocks in a lock of the system's; it never gets a gevent hub by waiting
    the hub             can't wait for its own greenlets: for other threads it does so, briefly; else gevent's error

The lock or queue that greenlets share decides which one is woken (see `WaitQueue`). Nothing here holds a lock of its
own, so that the garbage collector and signal handlers may come in anywhere and do the same things again. Each atomic
step is one call of C: append, remove, pop, a system lock's acquire and release.
"""

import _thread
from collections.abc import Callable
from typing import Any, Protocol

from gevent import get_hub, monkey
from gevent._hub_local import get_hub_if_exists
from gevent.exceptions import LoopExit
from greenlet import getcurrent

from .. import clock, deadline
from ..forking import parents_hubs
from ..in_flight import CURRENT, FOREVER
from .stdlib.hub import switch_unless_woken
from .threads import is_loop_thread


class SystemLock(Protocol):
    """The interpreter's own lock, which stops a thread."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...

    def locked(self) -> bool: ...

    def _at_fork_reinit(self) -> None: ...


new_lock: Callable[[], SystemLock] = monkey.get_original("_thread", "allocate_lock")
real_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
# A real thread that has just been started is counted after so long at most.
STARTING_SECONDS = 0.2
# How long the hub waits for another thread: as long as one holds a lock in which it does not wait itself.
HUB_SECONDS = 1.0
# So often, and for so long, a caller may try in vain to take something, or release something, before others run.
MOST_TRIES = 16
TRIES_SECONDS = 0.001


class Waiter:
    """One who waits. Waking is remembered until the next `park`, however often it is done.

    is_parked        it does not run now, nor does anything that has interrupted it
    is_passed_over   it was woken, and somebody else was quicker
    is_given         what it waits for is its own already, and it has been taken out of the line
    value            what was taken, if it is more than a right
    """

    __slots__ = ("greenlet", "is_given", "is_parked", "is_passed_over", "value")

    def __init__(self) -> None:
        self.greenlet: Any = getcurrent()
        self.is_parked = self.is_given = self.is_passed_over = False
        self.value: Any = None

    def wake(self) -> None:
        """Runs on: any thread, also within another wait."""
        raise NotImplementedError

    def park(self, until: float, *, is_endable: bool) -> None:
        """Wait; it may be woken for nothing."""
        raise NotImplementedError


class InLoop(Waiter):
    """A waiter that is a greenlet of the event loop."""

    __slots__ = ("hub", "is_woken")

    def __init__(self, hub: Any) -> None:
        super().__init__()
        self.hub = hub
        self.is_woken = False

    def wake(self) -> None:
        if self.is_woken:
            return
        self.is_woken = True
        loop = self.hub.loop
        try:
            if get_hub_if_exists() is self.hub:
                loop.run_callback(self._go_on)
            else:
                loop.run_callback_threadsafe(self._go_on)
        except ValueError:
            pass  # that loop is no more, and with it its greenlets

    def _go_on(self) -> None:
        """Runs on: hub."""
        if self.is_parked:
            self.is_parked = False  # from now on: whatever interrupts it is not to be switched to
            self.greenlet.switch()

    def _time_is_over(self) -> None:
        """Runs on: hub."""
        self.is_woken = True
        self._go_on()

    def park(self, until: float, *, is_endable: bool) -> None:
        watcher: Any = None
        loop = self.hub.loop
        if until != FOREVER:
            watcher = loop.timer(max(0.0, until - clock.now()))
            watcher.start(self._time_is_over, update=True)
        elif _thread._count():
            watcher = loop.async_()  # as long as a real thread may wake it, the loop has a reason to go on
            watcher.start(_nothing)
        try:
            self._switch_out(is_endable=is_endable)
        except LoopExit:
            if not a_thread_has_come():
                raise
        finally:
            self.is_woken = self.is_parked = False
            if watcher is not None:
                watcher.stop()
                watcher.close()

    def _switch_out(self, *, is_endable: bool) -> None:
        """If `is_endable`, the caller has said how the wait ends (TimedWait)."""
        if is_endable or CURRENT.get() is None:
            switch_unless_woken(self.hub, self)
        else:
            with deadline.unbounded():
                switch_unless_woken(self.hub, self)


class InThread(Waiter):
    """A waiter that is a real thread."""

    __slots__ = ("bell",)

    def __init__(self) -> None:
        super().__init__()
        self.bell = new_lock()
        self.bell.acquire()

    def wake(self) -> None:
        try:
            self.bell.release()
        except RuntimeError:
            pass  # it has been rung already

    def park(self, until: float, *, is_endable: bool) -> None:
        self.is_parked = True
        try:
            self.bell.acquire(True, -1 if until == FOREVER else max(0.0, until - clock.now()))
        finally:
            self.is_parked = False


class InHub(InThread):
    """The hub, in a callback of the loop."""

    __slots__ = ("hub", "owner", "until")

    def __init__(self, hub: Any, owner: Any) -> None:
        super().__init__()
        self.hub = hub
        self.owner = owner
        self.until = clock.now() + HUB_SECONDS

    def park(self, until: float, *, is_endable: bool) -> None:
        is_in_thread = self.owner is not None and _root(self.owner) is not _root(self.hub)
        if not is_in_thread or self.until <= clock.now():
            self.hub.switch()  # gevent's error
        super().park(min(until, self.until), is_endable=False)


def a_thread_has_come() -> bool:
    """Whether there is a real thread, or one that is just starting: those are not counted yet."""
    until = clock.now() + STARTING_SECONDS
    while not _thread._count() and clock.now() < until:
        real_sleep(STARTING_SECONDS / 20)
    return bool(_thread._count())


def _root(greenlet: Any) -> Any:
    while greenlet.parent is not None:
        greenlet = greenlet.parent
    return greenlet


def _nothing() -> None:
    pass


def waiter(owner: object = None) -> Waiter:
    """A waiter for the caller. `owner`: the greenlet that has what is waited for, where that is known."""
    hub = get_hub_if_exists()
    if hub is None:
        if not is_loop_thread():
            return InThread()
        hub = get_hub()
    if getcurrent() is hub:
        return InHub(hub, owner)
    return InLoop(hub)


class Tries:
    """Attempts to take what is not free by callers that do not wait for it, and releases, which never wait: both may be
    repeated without end. Real threads and the hub have no others to let run."""

    def __init__(self) -> None:
        self.left = 0
        self.until = 0.0

    def failed(self) -> None:
        """Let the other greenlets run, so that it gets free; not each time, since most try only once."""
        self.left -= 1
        if self.left <= 0 or clock.now() >= self.until:
            self.give_way()

    def released(self) -> None:
        """Let the other greenlets run, as they do at each release of a semaphore under gevent alone."""
        if clock.now() >= self.until:
            self.give_way()

    def give_way(self) -> None:
        hub = get_hub_if_exists()
        if hub is None or getcurrent() is hub:
            return
        # By a timer: callbacks run many times before the loop asks its sockets, which would take as many milliseconds.
        InLoop(hub).park(clock.now(), is_endable=False)
        self.left = MOST_TRIES
        self.until = clock.now() + TRIES_SECONDS


tries = Tries()


class WaitQueue:
    """Those who wait for one thing, which one of them can have at a time; first come, first served.

    Freeing the thing wakes the first waiter, which tries to take it; another may be quicker. Then the next release
    hands it over: so no waiter is passed over more than once, and the thing changes hands without a wait in between. No
    wake-up is lost: a waiter is in line before it tries for the last time, and when it leaves it wakes the next one
    when the thing is free.
    """

    __slots__ = ("__weakref__", "waiters")

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []

    # The operations on the thing itself, which subclasses define. None of them waits.

    def is_free(self) -> bool:
        raise NotImplementedError

    def try_take(self, waiter: Waiter) -> bool:
        raise NotImplementedError

    def free(self) -> None:
        """Give back what was taken, or handed over, and is not wanted."""
        raise NotImplementedError

    def wait(self, waiter: Waiter, until: float, *, is_endable: bool = True) -> bool:
        """Whether the thing was taken before the time was over."""
        self.waiters.append(waiter)
        try:
            while not (taken := self.try_take(waiter)) and clock.now() < until:
                waiter.park(until, is_endable=is_endable)
                if waiter.is_given:
                    return True
                waiter.is_passed_over = True  # unless it gets it now
        except BaseException:
            if not self._leave(waiter):
                self.free()
            raise
        return not self._leave(waiter) or taken

    def _leave(self, waiter: Waiter) -> bool:
        """False when the thing had been handed over to it in the meantime."""
        try:
            self.waiters.remove(waiter)
        except ValueError:
            return False
        if self.waiters and self.is_free():
            self.wake()
        return True

    def wake(self) -> None:
        """Wake those that wait: what they wait for is free."""
        if parents_hubs:
            self._leave_to_parent()
        for waiter in self.waiters:
            waiter.wake()
            if waiter.is_parked:
                return
            # It will look for itself, or it can't: it was interrupted, and what interrupts it waits as well.

    def _leave_to_parent(self) -> None:
        """In a forked child: the parent's greenlets stand in line there, and would never take what they get here."""
        self.waiters[:] = [waiter for waiter in self.waiters if getattr(waiter, "hub", None) not in parents_hubs]

    def heir(self) -> Waiter | None:
        """One to whom the thing must be handed over now, out of the line already."""
        if parents_hubs:
            self._leave_to_parent()
        try:
            first = self.waiters[0]
            if not (first.is_passed_over and first.is_parked):
                return None
            self.waiters.remove(first)
        except (IndexError, ValueError):
            return None  # it has just left
        return first
