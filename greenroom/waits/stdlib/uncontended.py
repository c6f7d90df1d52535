"""Queues, events and semaphores when nobody has to wait: what CPython's do, without what is only needed for waiting.

Each takes the same lock in the same way, so greenlets and real threads exclude each other as ever; where it is not
free, or there is something to wait for, CPython's own method does the rest. Left out are the condition's steps and what
a lock notes of its owner: nothing here calls code of the application's, so nobody can wait while it is held. That is
why it is for the plain queues only, whose items go into a deque or a list.
"""

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gevent import monkey

from ...in_flight import UNLOCKED, TimedWait
from ..parking import tries
from .locks import Lock, word

Queue: Any = monkey.get_original("queue", "Queue")
PLAIN_QUEUES = (Queue, monkey.get_original("queue", "LifoQueue"))
Call = Callable[..., Any]


def put(plain: Call) -> Call:
    """Queue.put."""

    @functools.wraps(plain)
    def put(self: Any, item: Any, block: bool = True, timeout: float | None = None) -> None:
        mutex = self.mutex
        if type(self) in PLAIN_QUEUES and type(mutex) is Lock and timeout is None and mutex.try_quickly():
            try:
                if not (0 < self.maxsize <= len(self.queue)) and not getattr(self, "is_shutdown", False):
                    self._put(item)
                    self.unfinished_tasks += 1
                    if self.not_empty._waiters:
                        self.not_empty.notify()
                    return
            finally:
                mutex.release()
        plain(self, item, block, timeout)

    return put


def get(plain: Call) -> Call:
    """Queue.get."""

    @functools.wraps(plain)
    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        mutex = self.mutex
        if type(self) in PLAIN_QUEUES and type(mutex) is Lock and timeout is None and mutex.try_quickly():
            try:
                if self.queue:
                    item = self._get()
                    if self.not_full._waiters:
                        self.not_full.notify()
                    return item
            finally:
                mutex.release()
        return plain(self, block, timeout)

    return get


def set_event(plain: Call) -> Call:
    """Event.set."""

    @functools.wraps(plain)
    def set(self: Any) -> None:
        condition = self._cond
        lock = condition._lock
        if type(lock) is not Lock or not lock.try_quickly():
            plain(self)
            return
        try:
            self._flag = True
            if condition._waiters:
                condition.notify_all()
        finally:
            lock.release()

    return set


def wait(plain: Call) -> Call:
    """Event.wait. Whoever sets the event finds the waiter where Condition.wait would have put it."""

    @functools.wraps(plain)
    def wait(self: Any, timeout: float | None = None) -> bool:
        if self._flag:
            return True
        condition = self._cond
        lock = condition._lock
        if timeout is not None or type(lock) is not Lock or not lock.try_quickly():
            return bool(plain(self, timeout))
        try:
            if self._flag:
                return True
            bell = word()
            bell.acquire()
            condition._waiters.append(bell)
        finally:
            lock.release()
        with TimedWait("lock", "event", None, UNLOCKED):
            try:
                return bell.wait_for(-1)
            except BaseException:
                with condition, suppress(ValueError):
                    condition._waiters.remove(bell)
                raise
        return False  # not without a timeout of its own, see TimedWait

    return wait


def clear(self: Any) -> None:
    """Event.clear. One step, so it needs no lock."""
    self._flag = False


def acquire(plain: Call) -> Call:
    """Semaphore.acquire."""

    @functools.wraps(plain)
    def acquire(self: Any, blocking: bool = True, timeout: float | None = None) -> bool:
        lock = self._cond._lock
        if type(lock) is Lock and (blocking or timeout is None) and lock.try_quickly():
            try:
                if self._value > 0:
                    self._value -= 1
                    return True
            finally:
                lock.release()
            if timeout is not None and timeout <= 0:  # as an executor asks, for each job, whether a thread is idle
                tries.failed()
                return False
        return bool(plain(self, blocking, timeout))

    return acquire


def release(plain: Call) -> Call:
    """Semaphore.release, which a worker of Python 3.11's ThreadPoolExecutor calls after each job: where the queue never
    gets empty nothing else in it would wait."""

    @functools.wraps(plain)
    def release(self: Any, n: int = 1) -> None:
        plain(self, n)
        tries.released()

    return release
