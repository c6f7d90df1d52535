"""Calls for real threads of what can only wait in the event loop: a greenlet there does it, and the thread blocks.

So coroutines, offloaded calls and their threads use the client's connection as views do.
"""

import functools
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

import gevent
from gevent import monkey

from .threads import is_loop_thread

Function = TypeVar("Function", bound=Callable[..., Any])

_new_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
_hub: Any = None


def install() -> None:
    """Runs on: the main thread, after patching."""
    global _hub
    _hub = gevent.get_hub()


def for_any_thread(plain: Function) -> Function:
    """Let `plain`, which waits in the event loop, be called from real threads as well."""

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_loop_thread() or _hub is None:
            return plain(*args, **kwargs)
        return run_in_loop(functools.partial(plain, *args, **kwargs))

    return call  # type: ignore[return-value]


def run_in_loop(call: Callable[[], Any]) -> Any:
    """Return or raise the outcome of `call()` in a greenlet with this thread's context. Runs on: a real thread.

    Raises RuntimeError where no loop is known, in a process that is not patched for serving.
    """
    if _hub is None:
        raise RuntimeError("there is no event loop to do this in: call it in the main thread")
    answer = Answer(functools.partial(copy_context().run, call))
    _hub.loop.run_callback_threadsafe(gevent.spawn, answer.find)
    answer.found.acquire()
    try:
        if answer.error is not None:
            raise answer.error
        return answer.value
    finally:
        del answer  # its error's traceback refers to this frame


class Answer:
    """A greenlet's result, and a lock that is free when it is there."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.found = _new_lock()
        self.found.acquire()

    def find(self) -> None:
        """Runs on: a greenlet of the loop."""
        try:
            self.value = self.call()
        except BaseException as exc:  # whatever it is, it is for the one who asked
            self.error = exc
        finally:
            self.found.release()
