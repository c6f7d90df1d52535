"""Threads, executors and greenlets that a request starts have its record: what they do is charged to it.

    threading.Thread, gevent.spawn, spawn_later, spawn_raw, pools of greenlets
        from their start
    ThreadPoolExecutor.submit
        for the one call: the executor's threads may serve many requests

They may be anything, a library's helper that serves all requests from now on, say. So of their waits only upstream
calls and queries that go on when the request ends are ended with it; see in_flight.py.
"""

import functools
import importlib
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import gevent
import gevent.pool
from greenlet import getcurrent

from ... import deadline, observing
from ...in_flight import CURRENT, Record, TimedWait
from ...replacements import Put, part


@part("waits")
def install(put: Put) -> None:
    """Runs on: the main thread, after patching."""
    # Each start of a thread comes here. Private to gevent; a test holds it fast.
    greenlets = importlib.import_module("gevent.thread")
    put(greenlets, "_start_new_greenlet", inheriting(greenlets._start_new_greenlet))
    for name in ("spawn", "spawn_later", "spawn_raw"):
        put(gevent, name, inheriting(getattr(gevent, name)))
    group: Any = gevent.pool.Group
    put(group, "start", started_for_request(group.start))
    thread: Any = threading.Thread
    put(thread, "start", begun_whole(thread.start))
    if hasattr(thread, "_wait_for_tstate_lock"):  # until Python 3.12
        put(thread, "_wait_for_tstate_lock", wait_for_tstate_lock(thread._wait_for_tstate_lock))
    else:
        put(thread, "join", join(thread.join))
    put(ThreadPoolExecutor, "submit", submit(ThreadPoolExecutor.submit))


def inherited() -> Record | None:
    """Return the record of the request that a thread started now works for, if any."""
    record = CURRENT.get()
    return None if record is None or record.is_over else record


def give(greenlet: Any, record: Record) -> None:
    """Let `greenlet`, which has not run yet, work for this request."""
    greenlet.gr_context = context = Context()
    context.run(CURRENT.set, record)


def inheriting(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns a greenlet which will run."""

    @functools.wraps(plain)
    def spawn(*args: Any, **kwargs: Any) -> Any:
        greenlet = plain(*args, **kwargs)
        record = inherited()
        if record is not None:
            give(greenlet, record)
        return greenlet

    return spawn


def started_for_request(plain: Callable[..., None]) -> Callable[..., None]:
    """Group.start, and with it Pool.spawn and all their maps."""

    @functools.wraps(plain)
    def start(self: Any, greenlet: Any) -> None:
        record = inherited()
        if record is not None and greenlet.gr_context is None:
            give(greenlet, record)
        plain(self, greenlet)

    return start


def begun_whole(plain: Callable[..., None]) -> Callable[..., None]:
    """Thread.start waits until the thread runs, which is in the next turn of the loop."""

    @functools.wraps(plain)
    def start(self: Any) -> None:
        if CURRENT.get() is None:
            plain(self)
            return
        with deadline.unbounded():
            plain(self)

    return start


def wait_for_tstate_lock(plain: Callable[..., None]) -> Callable[..., None]:
    """Return the wait of Thread.join. CPython takes an error in it for a sign that the thread ended (bpo-45274)."""

    @functools.wraps(plain)
    def wait(self: Any, block: bool = True, timeout: float = -1) -> None:
        lock = self._tstate_lock
        if block and lock is not None and CURRENT.get() is not None:
            has_come = False
            with TimedWait("lock", f"thread {self.name}", None if timeout < 0 else timeout):
                has_come = lock.acquire(True, timeout)
            if not has_come:
                return
            lock.release()
        plain(self, block, timeout)

    return wait


def join(plain: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(plain)
    def join(self: Any, timeout: float | None = None) -> None:
        with TimedWait("lock", f"thread {self.name}", timeout):
            plain(self, timeout)

    return join


def submit(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def submit(self: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        record = CURRENT.get()
        if record is None or record.is_over:
            return plain(self, function, *args, **kwargs)
        # Threads that are started now serve others as well, later.
        used.executors.add(self)
        token = CURRENT.set(None)
        try:
            return plain(self, work_for, weakref.ref(self), record, function, *args, **kwargs)
        finally:
            CURRENT.reset(token)

    return submit


class Used:
    """The executors that requests use, and who works in their threads for which request."""

    def __init__(self) -> None:
        self.executors: weakref.WeakSet[ThreadPoolExecutor] = weakref.WeakSet()
        self.at_work: dict[Any, tuple[weakref.ref[ThreadPoolExecutor], Record]] = {}


used = Used()
observing.show(observing.executors, used)


def work_for(
    executor: "weakref.ref[ThreadPoolExecutor]",
    record: Record,
    function: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """One call, in a thread of an executor."""
    token = CURRENT.set(record)
    me = getcurrent()
    used.at_work[me] = executor, record
    if observing.on_job_changed is not None:
        observing.on_job_changed()
    try:
        return function(*args, **kwargs)
    finally:
        used.at_work.pop(me, None)
        CURRENT.reset(token)
        if observing.on_job_changed is not None:
            observing.on_job_changed()
