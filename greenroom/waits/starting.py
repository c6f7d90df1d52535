"""Threads that are started in real threads are real threads.

gevent makes greenlets of them, in a hub of that thread. Nobody runs that hub when the thread waits for something else,
as the side loop's and offloaded functions' do: a helper that a library starts there would stand still for ever.
Sleeping there makes no hub either.
"""

import _thread
import functools
import importlib
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from gevent import monkey
from gevent._hub_local import get_hub_if_exists

from ..in_flight import CURRENT
from ..replacements import Put, part
from .threads import ThreadRecord, is_loop_thread, start_thread

real_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
_thread_class: Any = threading.Thread
bootstrap: Any = _thread_class._bootstrap


@part("threads")
def install(put: Put) -> None:
    """Runs on: the main thread, after patching. Safe to call again."""
    threads: Any = importlib.import_module("gevent.threading")
    modules: tuple[Any, ...] = (_thread, threading)
    put(time, "sleep", sleep(time.sleep))
    for module in modules:
        for name in ("start_new_thread", "start_new", "_start_new_thread"):
            if hasattr(module, name):
                put(module, name, start_new(getattr(module, name)))
        for name in ("start_joinable_thread", "_start_joinable_thread"):
            if hasattr(module, name):
                put(module, name, start_joinable(getattr(module, name)))
    if hasattr(threads.Thread, "_set_tstate_lock"):  # until Python 3.12
        put(threads.Thread, "_set_tstate_lock", set_tstate_lock(threads.Thread._set_tstate_lock))


def sleep(plain: Callable[[float], None]) -> Callable[[float], None]:
    @functools.wraps(plain)
    def sleep(seconds: float) -> None:
        if seconds != seconds:  # a timer of libev's that compares with nothing stops all others
            raise ValueError("Invalid value NaN (not a number)")
        if is_loop_thread() or get_hub_if_exists() is not None:
            plain(seconds)
        else:
            real_sleep(seconds)

    return sleep


def ending_alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """As a thread of CPython's: its SystemExit or KeyboardInterrupt ends nothing else. A greenlet's ends the process.

    threading.Thread sees to that itself.
    """
    if not callable(function) or getattr(function, "__func__", None) is bootstrap:
        return function

    @functools.wraps(function)
    def end_alone(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except SystemExit:
            pass  # as CPython does: it is the thread's end
        except KeyboardInterrupt:
            traceback.print_exc()

    return end_alone


def start_new(plain: Callable[..., int]) -> Callable[..., int]:
    def start_new_thread(function: Callable[..., Any], args: Any = (), kwargs: Any = None) -> int:
        if is_loop_thread():
            return plain(ending_alone(function), args, {} if kwargs is None else kwargs)
        return start_thread(run, (CURRENT.get(), function, args, kwargs or {}))

    return start_new_thread


def run(record: Any, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Runs on: the new thread."""
    if record is not None and not record.is_over:
        CURRENT.set(ThreadRecord(record.request if isinstance(record, ThreadRecord) else record))
    try:
        function(*args, **kwargs)
    finally:
        thread = getattr(function, "__self__", None)
        lock = getattr(thread, "_tstate_lock", None)
        if lock is not None:  # CPython releases it when the thread's state goes, if it is one of the system's
            lock.release()
            thread._stop()  # type: ignore[union-attr]


def set_tstate_lock(plain: Callable[[Any], None]) -> Callable[[Any], None]:
    original: Any = monkey.get_original("threading", "Thread")

    def set_tstate_lock(thread: Any) -> None:
        if is_loop_thread():
            plain(thread)
        else:
            original._set_tstate_lock(thread)

    return set_tstate_lock


class Running:
    """A real thread, to gevent's handles of Python 3.13: they ask whether it is `dead`, and `join` it."""

    def __init__(self) -> None:
        self.dead = False
        self.ended = threading.Event()

    def join(self, timeout: float | None = None) -> None:
        self.ended.wait(timeout)

    def run(self, record: Any, function: Callable[[], Any]) -> None:
        """Runs on: the new thread."""
        try:
            run(record, function, (), {})
        finally:
            self.dead = True
            self.ended.set()


def start_joinable(plain: Callable[..., Any]) -> Callable[..., Any]:
    def start_joinable_thread(function: Callable[[], Any], handle: Any = None, daemon: bool = True) -> Any:
        if is_loop_thread():
            return plain(function, handle, daemon)
        if handle is None:
            handle = threading._ThreadHandle()  # type: ignore[attr-defined]
        running = Running()
        handle._set_greenlet(running)
        start_thread(running.run, (CURRENT.get(), function))
        return handle

    return start_joinable_thread
