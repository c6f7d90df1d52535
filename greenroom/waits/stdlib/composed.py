"""CPython's conditions, semaphores, events and queues, which wait through our locks: how they end with their request.

They keep the time themselves, and wait again where a wait was too short. So what ends is the call that the application
has made. Condition.wait is a single wait of a lock and needs nothing.
"""

import functools
import queue
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from gevent import monkey

from ... import clock, deadline
from ...in_flight import CURRENT, UNLOCKED, TimedWait
from ...replacements import Replace
from . import uncontended


def replace(put: Replace) -> None:
    """Runs on: the main thread, after patching."""
    put(threading.Condition, "wait_for", wait_for)
    # Theirs for locks that are not ours; threading._RLock is the one that is written in Python.
    kinds: tuple[Any, ...] = (threading.Condition, threading._RLock)
    for kind in kinds:
        put(kind, "_acquire_restore", taken_back(kind._acquire_restore))
    event: Any = monkey.get_original("threading", "Event")
    put(event, "wait", uncontended.wait(composed(event.wait, "event", timeout_at=0, at_end=not_in_time)))
    put(event, "set", uncontended.set_event(event.set))
    put(event, "clear", functools.wraps(event.clear)(uncontended.clear))
    semaphore: Any = threading.Semaphore
    # `with semaphore:` has a name of its own for it.
    acquire = uncontended.acquire(composed(semaphore.acquire, "semaphore", timeout_at=1, at_end=not_in_time))
    for name in ("acquire", "__enter__"):
        put(semaphore, name, acquire)
    for kind in (semaphore, threading.BoundedSemaphore):
        put(kind, "release", uncontended.release(kind.release))
    queues: Any = monkey.get_original("queue", "Queue")
    put(queues, "get", uncontended.get(composed(queues.get, "queue", timeout_at=1, at_end=empty)))
    put(queues, "put", uncontended.put(composed(queues.put, "queue", timeout_at=2, at_end=full)))


def not_in_time() -> bool:
    return False


def empty() -> NoReturn:
    raise queue.Empty


def full() -> NoReturn:
    raise queue.Full


class Composed(TimedWait):
    """A wait for a `thing` that is made of locks."""

    __slots__ = ("thing",)

    def __init__(self, name: str, timeout: float | None, thing: object) -> None:
        TimedWait.__init__(self, "lock", name, timeout, UNLOCKED)
        self.thing = thing


def composed(plain: Callable[..., Any], name: str, *, timeout_at: int, at_end: Callable[[], Any]) -> Callable[..., Any]:
    """A method that waits, with a timeout as the argument at `timeout_at`."""

    @functools.wraps(plain)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is None:
            return plain(self, *args, **kwargs)
        timeout = args[timeout_at] if len(args) > timeout_at else kwargs.get("timeout")
        with Composed(name, timeout, self):
            return plain(self, *args, **kwargs)
        return at_end()

    return call


def taken_back(plain: Callable[..., None]) -> Callable[..., None]:
    """A method that takes a lock back after a wait, which is never ended: `with condition` will release it."""

    @functools.wraps(plain)
    def acquire_restore(self: Any, state: Any) -> None:
        with deadline.unbounded():
            plain(self, state)

    return acquire_restore


def wait_for(self: Any, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
    """Condition.wait_for. The predicate is the application's, and may wait in its own ways."""
    until = None if timeout is None else clock.now() + timeout
    while not (result := predicate()):
        if until is None:
            self.wait()
            continue
        left = until - clock.now()
        if left <= 0:
            break
        if not self.wait(left) and clock.now() < until:
            return predicate()  # it was ended
    return result
