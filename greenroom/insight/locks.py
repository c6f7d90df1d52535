"""Who holds which lock, and who waits in a circle.

A lock of `threading` remembers who took it, and a greenlet that has to wait for one is noted; RLock, Condition,
Semaphore and queues are built over that lock. So these can be named:

    circle      each waits for a lock that the next one holds; who waits for a lock that he holds himself is one as well
    orphan      the greenlet that holds the lock has ended, and nobody else can be seen to release it

Condition.wait and its like take a lock of their own twice, for somebody else to release: that is no circle.
"""

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent.lock
from gevent import monkey
from greenlet import getcurrent

from .. import clock
from ..record import CURRENT
from . import stacks

logger = logging.getLogger("gunicorn.error")

# A wait that is younger is not looked at.
SHORTEST_WAIT_SECONDS = 1.0
OWNER = "_greenroom_owner"
# Of threading.
SIGNALS = ("Condition.wait", "Thread._wait_for_tstate_lock")
_try_acquire = gevent.lock.BoundedSemaphore.acquire


@dataclass(slots=True)
class Waiter:
    """A greenlet that waits for a lock."""

    greenlet: Any
    lock: Any
    since: float
    record: Any

    def holder(self) -> str:
        """Who has the lock: a request's id, "ended" for a greenlet that has ended, "" where it is not known."""
        owner = getattr(self.lock, OWNER, None)
        if owner is None or owner is self.greenlet:
            return ""
        if owner.dead:
            return "ended"
        try:
            context = owner.gr_context
        except ValueError:
            return ""  # it runs, and somebody in another thread asks
        record = context.get(CURRENT) if context is not None else None
        return getattr(record, "id", "")

    def stack(self) -> stacks.Stack:
        return stacks.of_frame(self.greenlet.gr_frame)


@dataclass(slots=True)
class Deadlock:
    """Who waits in a circle, or `is_cycle` False: who waits for a lock whose holder is gone."""

    members: list[Waiter]
    is_cycle: bool

    @property
    def key(self) -> tuple[int, ...]:
        return tuple(sorted(id(member.greenlet) for member in self.members))

    def as_dict(self, now: float) -> dict[str, Any]:
        return {
            "since_seconds": now - max(member.since for member in self.members),
            "is_cycle": self.is_cycle,
            "members": [
                {
                    "request": getattr(member.record, "id", ""),
                    "route": member.record.pattern() if hasattr(member.record, "pattern") else "",
                    "lock": _name(member.lock),
                    "waits_for": _request_of(self.members[(number + 1) % len(self.members)]) if self.is_cycle else "",
                    "waited_seconds": now - member.since,
                    "stack": [str(call) for call in member.stack()],
                }
                for number, member in enumerate(self.members)
            ],
        }

    def __str__(self) -> str:
        def where(member: Waiter) -> str:
            call = stacks.guilty(member.stack())
            request = getattr(member.record, "id", "") or "-"
            return f"request {request} at {call.place if call else stacks.UNKNOWN} waits for {_name(member.lock)}"

        said = "; ".join(where(member) for member in self.members)
        return f"deadlock: {said}" if self.is_cycle else f"lock held by a greenlet that has ended: {said}"


class Locks:
    """The waits for locks of this process. Runs on: any greenlet; anybody may read."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self.now = now
        self.waiting: dict[Any, Waiter] = {}
        self.reported: set[tuple[int, ...]] = set()
        self._plain: tuple[Any, Any] | None = None

    def install(self) -> None:
        """Have the locks of `threading` remember. Runs on: worker start-up, in a patched process."""
        lock: Any = threading.Lock
        if not hasattr(lock, "acquire") or not monkey.is_module_patched("threading"):
            return
        self._plain = (lock.acquire, lock.release)
        lock.acquire = self._acquire(lock.acquire)
        lock.release = self._release(lock.release)

    def remove(self) -> None:
        if self._plain is not None:
            lock: Any = threading.Lock
            lock.acquire, lock.release = self._plain
            self._plain = None

    def _acquire(self, plain: Callable[..., bool]) -> Callable[..., bool]:
        waiting, now = self.waiting, self.now

        @functools.wraps(plain)
        def acquire(self: Any, blocking: bool = True, timeout: float | None = -1) -> bool:
            if timeout == -1 and _try_acquire(self, False):
                self._greenroom_owner = getcurrent()
                return True
            if not blocking:
                taken = plain(self, blocking, timeout)
            else:
                me = getcurrent()
                waiting[me] = Waiter(me, self, now(), CURRENT.get())
                try:
                    taken = plain(self, blocking, timeout)
                finally:
                    del waiting[me]
            if taken:
                self._greenroom_owner = getcurrent()
            return taken

        return acquire

    @staticmethod
    def _release(plain: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(plain)
        def release(self: Any) -> int:
            self._greenroom_owner = None
            return plain(self)  # gevent's `with` wants the number

        return release

    def deadlocks(self) -> list[Deadlock]:
        """Those that there are at this moment. Runs on: any thread."""
        now = self.now()
        waiting = {
            id(waiter.greenlet): waiter
            for waiter in list(self.waiting.values())
            if now - waiter.since >= SHORTEST_WAIT_SECONDS
        }
        found: dict[tuple[int, ...], Deadlock] = {}
        for waiter in waiting.values():
            deadlock = self._follow(waiter, waiting)
            if deadlock is not None:
                found.setdefault(deadlock.key, deadlock)
        return list(found.values())

    @staticmethod
    def _follow(first: Waiter, waiting: dict[int, Waiter]) -> Deadlock | None:
        path = [first]
        while True:
            owner = getattr(path[-1].lock, OWNER, None)
            if owner is None:
                return None
            if owner.dead:
                return Deadlock(path[-1:], is_cycle=False) if path[-1] is first else None
            following = waiting.get(id(owner))
            if following is None:
                return None
            if following is first:
                return None if len(path) == 1 and _is_signal(first) else Deadlock(path, is_cycle=True)
            if following in path:
                return None  # a circle that `first` only waits for
            path.append(following)

    def report(self) -> None:
        """Say what is new, once. Runs on: background greenlet, about once a second."""
        if not self.waiting:
            self.reported.clear()
            return
        found = {deadlock.key: deadlock for deadlock in self.deadlocks()}
        for key in found.keys() - self.reported:
            deadlock = found[key]
            parts = [str(deadlock)]
            for member in deadlock.members:
                parts.append(f"request {getattr(member.record, 'id', '') or '-'}, innermost call first:")
                parts += [f"  {call}" for call in member.stack()]
            logger.error("%s", "\n".join(parts))
        self.reported = set(found)


def _is_signal(waiter: Waiter) -> bool:
    """Whether who waits took the lock for somebody else to release, as threading does to wake waiters."""
    for call in waiter.stack():
        if not call.file.startswith(stacks.GREEN):
            return call.file == threading.__file__ and call.function in SIGNALS
    return False


def _name(lock: Any) -> str:
    return f"lock {id(lock):#x}"


def _request_of(waiter: Waiter) -> str:
    return str(getattr(waiter.record, "id", ""))
