"""Locks, conditions, events and queues: each wait is named, and times out as its callers know it.

Replaced are the names in `threading` and `queue`, and the methods of gevent's lock, over which semaphores, barriers,
futures and conditions are built.
"""

import functools
import queue
import threading
from collections.abc import Callable
from typing import Any

import gevent.event
import gevent.lock
import gevent.queue

from ... import deadline
from ...record import CURRENT, TimedWait

try_acquire = gevent.lock.BoundedSemaphore.acquire


def install() -> None:
    """Runs on: the main thread, after patching."""
    names: Any = threading
    if names.Event is Event:
        return
    names.Event = Event
    names.Lock.acquire = acquire(names.Lock.acquire)
    for restoring in (names.Condition, names._RLock):
        restoring._acquire_restore = taken_back(restoring._acquire_restore)
    for replacement in (Queue, LifoQueue, PriorityQueue, SimpleQueue):
        setattr(queue, replacement.__name__, replacement)


def acquire(plain: Callable[..., bool]) -> Callable[..., bool]:
    """Lock.acquire."""

    @functools.wraps(plain)
    def acquire(self: Any, blocking: bool = True, timeout: float | None = -1) -> bool:
        if timeout is None:
            timeout = -1  # `with lock:` says so
        if CURRENT.get() is None:
            return plain(self, blocking, timeout)
        if not blocking or timeout == 0:
            # It does not wait, but lets others run when it fails. Thread.is_alive() is such a call: it must not raise.
            with deadline.unbounded():
                return plain(self, blocking, timeout)
        if (timeout == -1 or timeout > 0) and try_acquire(self, False):
            return True
        with TimedWait("lock", "lock", None if timeout == -1 else timeout):
            return plain(self, True, timeout)
        return False

    return acquire


def taken_back(plain: Callable[..., None]) -> Callable[..., None]:
    """Condition.wait has given its lock away and must have it again, or `with condition:` would release another's."""

    @functools.wraps(plain)
    def acquire_restore(self: Any, state: Any) -> None:
        if CURRENT.get() is None:
            plain(self, state)
            return
        with deadline.unbounded():
            plain(self, state)

    return acquire_restore


class Event(gevent.event.Event):
    """threading.Event."""

    def wait(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        if CURRENT.get() is None or self.is_set():
            return bool(super().wait(timeout))
        with TimedWait("lock", "event", timeout):
            return bool(super().wait(timeout))
        return False


class Bounded:
    """What all queues have in common: Empty and Full when the budget ends."""

    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        if CURRENT.get() is None or not block:
            return super().get(block, timeout)  # type: ignore[misc]
        with TimedWait("lock", "queue", timeout):
            return super().get(block, timeout)  # type: ignore[misc]
        raise queue.Empty

    def put(self: Any, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if CURRENT.get() is None or not block:
            super().put(item, block, timeout)  # type: ignore[misc]
            return
        with TimedWait("lock", "queue", timeout):
            super().put(item, block, timeout)  # type: ignore[misc]
            return
        raise queue.Full


class Queue(Bounded, gevent.queue.Queue[Any]):
    """queue.Queue."""


class LifoQueue(Queue, gevent.queue.LifoQueue[Any]):
    """queue.LifoQueue."""


class PriorityQueue(Queue, gevent.queue.PriorityQueue[Any]):
    """queue.PriorityQueue."""


class SimpleQueue(Bounded, gevent.queue.SimpleQueue[Any]):
    """queue.SimpleQueue."""
