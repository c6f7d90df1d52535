"""Coroutines in blocking code: `async def` views, and libraries that only speak asyncio.

    async def view, asyncio.run(), asgiref's async_to_sync   ─>  a loop of its own, in a real thread meanwhile
    Runner, loop.run_until_complete(), loop.run_forever()    ─>  that loop, in a real thread meanwhile

The greenlet that asked waits in our event loop, so any number of requests can be at it at the same time, and code that
blocks in a coroutine blocks nobody else. It is as under a server with threads, where each request has a thread: one
loop for all would let a coroutine that reads a body, or asks a database, hold up those of all other requests.

Context variables go along, and what an async view sets in them comes back. When the request's budget ends, the
coroutine is cancelled.

own_loops runs these loops; real has executors with real threads.

Importing this does not import asyncio: most applications never do.
"""

import copy
import functools
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from ...on_import import when_imported
from ...replacements import Put, part
from ..threads import can_wait


def install() -> None:
    """Have coroutines run this way in asyncio, Flask and asgiref, as soon as they are imported. Safe to call again."""
    when_imported("asyncio", _install_in_asyncio)
    when_imported("flask.app", _install_in_flask)
    when_imported("asgiref.sync", _install_in_asgiref)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run `coroutine` and return its result. Raises its error, or TimeoutError when the request's budget ends first.

    Runs on: request greenlet; switches.
    """
    import asyncio  # noqa: F401  # first: what is replaced in it is replaced as it is imported

    from . import own_loops

    return own_loops.run(coroutine)


@part("coroutines")
def _install_in_asyncio(put: Put, module: Any) -> None:
    from . import own_loops

    own_loops.replace(put)


@part("flask-async")
def _install_in_flask(put: Put, module: Any) -> None:
    original = module.Flask.async_to_sync

    @functools.wraps(original)
    def async_to_sync(app: Any, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            # Where asgiref is used, its sync_to_async() comes back to the view's thread, by its own async_to_sync().
            if can_wait() and "asgiref.sync" not in sys.modules:
                return run(function(*args, **kwargs))
            return original(app, function)(*args, **kwargs)

        return call

    put(module.Flask, "async_to_sync", async_to_sync)


@part("asgiref")
def _install_in_asgiref(put: Put, module: Any) -> None:
    """Leave async_to_sync() asgiref's own, and end what it runs when its caller doesn't wait any longer.

    It runs a loop in a thread of its own, by asyncio.run(). Meanwhile its caller runs what sync_to_async() brings:
    transactions, Django's connections and thread locals are the caller's, and one request waits for no other.
    """
    from . import own_loops
    from .real import RealThreadPoolExecutor

    original = module.AsyncToSync.__call__

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not can_wait():
            return original(self, *args, **kwargs)
        visit = own_loops.Visit()

        async def awaited() -> Any:
            visit.begins(getattr(module.AsyncToSync.executors, "current", None))
            try:
                return await self.awaitable(*args, **kwargs)
            finally:
                visit.ends()

        bound = copy.copy(self)
        bound.awaitable = awaited
        try:
            return original(bound)
        except BaseException:
            visit.give_up()
            raise

    put(module.AsyncToSync, "__call__", call)
    # For a sync_to_async() that no async_to_sync() has called.
    put(module.SyncToAsync, "single_thread_executor", RealThreadPoolExecutor(1))
