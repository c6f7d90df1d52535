"""Threads that real threads start are real threads as well.

Under patching a thread is a greenlet of the thread that starts it. That is right in the loop's thread; a real thread
(an event loop's, an offloaded call's) runs no greenlets but its own, so what it starts would never get its turn.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import greenlet
from gevent import monkey
from gevent._hub_local import get_hub_if_exists

from .threads import REAL, is_loop_thread, start_thread

_new_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")


class ThreadGreenlet(greenlet.greenlet):
    """The only greenlet of a real thread: what gevent's Thread expects of the greenlet that it is."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(function)
        self._links: list[Callable[[Any], Any]] = []

    def rawlink(self, callback: Callable[[Any], Any]) -> None:
        """Have `callback` called when the thread is about to end."""
        self._links.append(callback)

    def end(self) -> None:
        for callback in self._links:
            callback(self)


def is_real() -> bool:
    """Whether greenlets that are started in this thread would never run."""
    return not is_loop_thread() and (hasattr(REAL, "is_ours") or get_hub_if_exists() is None)


def install() -> None:
    """Runs on: the main thread, after patching."""
    # Each start of a thread comes here. Private to gevent; a test holds it fast.
    greenlets = importlib.import_module("gevent.thread")
    plain = greenlets._start_new_greenlet
    if not hasattr(plain, "__real__"):
        setattr(greenlets, "_start_new_greenlet", in_its_kind(plain))  # noqa: B010


def in_its_kind(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def start(function: Callable[..., Any], args: Any = (), kwargs: Any = None) -> Any:
        if not is_real():
            return plain(function, args, kwargs)
        return start_real_thread(functools.partial(function, *args, **(kwargs or {})))

    start.__real__ = True  # type: ignore[attr-defined]
    return start


def start_real_thread(function: Callable[[], Any]) -> ThreadGreenlet:
    """Run `function` in a thread of the operating system; returns the greenlet that it is there."""
    begun = _new_lock()
    begun.acquire()
    found: list[ThreadGreenlet] = []

    def run() -> None:
        one = ThreadGreenlet(function)
        found.append(one)
        begun.release()
        try:
            one.switch()
        finally:
            one.end()

    start_thread(run)
    begun.acquire()
    return found[0]
