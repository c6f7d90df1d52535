"""asyncio as blocking code uses it: each way to run a coroutine to its end, for any number of greenlets at once.

asyncio.run() goes to the side loop. A loop that somebody made runs in a real thread while the greenlet waits; since it
was made with gevent's selector, it is given a real one first. What stays as it was: a loop that a thread (under
patching a greenlet) runs for ever, with run_forever(), in gevent's loop.
"""

import asyncio
import functools
from asyncio import base_events, runners
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from gevent.selectors import GeventSelector

from ...deadline import raise_if_refused, unbounded
from ..threads import Threads, can_wait, own_record
from .real import EXECUTOR_THREADS, RealSelector, RealThreadPoolExecutor

# Loops that run at the same time; others wait for a thread.
LOOPS = 64
# How long a cancelled loop may take to stop before its owner goes on and closes it.
STOPPING_SECONDS = 1.0

threads = Threads(LOOPS)


def install() -> None:
    asyncio.run = runners.run = _run_instead_of(runners.run)
    loop_class: Any = base_events.BaseEventLoop
    loop_class.run_until_complete = _run_until_complete_instead_of(loop_class.run_until_complete)
    loop_class.run_forever = _run_forever_instead_of(loop_class.run_forever)


def _run_instead_of(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(main: Any, **options: Any) -> Any:
        if can_wait() and asyncio.iscoroutine(main) and all(value is None for value in options.values()):
            from .side_loop import side_loop  # it needs asyncio, and we are called while that is imported

            return side_loop.run(main)
        return original(main, **options)

    return run


def _run_until_complete_instead_of(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_until_complete(loop: Any, future: Any) -> Any:
        if not can_wait() or loop.is_running() or loop.is_closed():
            return original(loop, future)
        try:
            raise_if_refused()
        except BaseException:
            if asyncio.iscoroutine(future):
                future.close()  # else Python warns that nobody has awaited it
            raise
        context = _context_for_thread()
        task = context.run(asyncio.ensure_future, future, loop=loop)
        return _run_in_thread(loop, functools.partial(context.run, original, loop, task), task.cancel)

    return run_until_complete


def _run_forever_instead_of(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_forever(loop: Any) -> None:
        if not can_wait() or loop.is_running() or loop.is_closed() or _has_gevent_selector(loop):
            original(loop)
        else:
            _run_in_thread(loop, functools.partial(_context_for_thread().run, original, loop), loop.stop)

    return run_forever


def _context_for_thread() -> Context:
    context = copy_context()
    context.run(own_record)
    return context


def _run_in_thread(loop: Any, call: Callable[[], Any], stop: Callable[[], Any]) -> Any:
    _prepare(loop)
    job = threads.submit(call)
    try:
        job.wait("other", "event loop", None)
        return job.result()
    finally:
        job.error = None
        if not job.is_done and not threads.withdraw(job):
            loop.call_soon_threadsafe(stop)
            # Who closes a loop that runs gets an error for it.
            with unbounded():
                job.wait("other", "event loop", STOPPING_SECONDS)


def _has_gevent_selector(loop: Any) -> bool:
    return isinstance(getattr(loop, "_selector", None), GeventSelector)


def _prepare(loop: Any) -> None:
    """Give a loop that was made in this thread what it needs in another."""
    if loop._default_executor is None:
        loop.set_default_executor(RealThreadPoolExecutor(EXECUTOR_THREADS))
    if _has_gevent_selector(loop):
        old, loop._selector = loop._selector, RealSelector()
        for key in list(old.get_map().values()):
            old.unregister(key.fileobj)
            loop._selector.register(key.fileobj, key.events, key.data)
        old.close()
