"""Coroutines in blocking code: `async def` views, and libraries that only speak asyncio.

    async def view, asyncio.run(), asgiref's async_to_sync  ─>  the side loop: one for all, in a real thread
    loop.run_until_complete(), Runner, run(loop_factory=...) ─>  that loop, in a real thread of its own meanwhile

The greenlet that asked waits in the event loop, so any number of requests can be at it at the same time. asyncio knows
one running loop for each OS thread, and all our greenlets are in one: that is why two coroutines could not meet before.

As under asyncio.run(), what a coroutine leaves running is cancelled when it ends; a task that is made with an empty
context (`create_task(..., context=Context())`) lives on, and so do clients and pools that are kept on the side loop.
Context variables go along, and what the coroutine sets in them comes back. When the request's budget ends, the
coroutine is cancelled.

Importing this does not import asyncio: most applications never do.
"""

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from ...on_import import when_imported
from ..threads import can_wait


@functools.cache
def install() -> None:
    """Have coroutines run this way in asyncio, Flask and asgiref, as soon as they are imported; once."""
    when_imported("asyncio", _install_in_asyncio)
    when_imported("flask.app", _install_in_flask)
    when_imported("asgiref.sync", _install_in_asgiref)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What `coroutine` returns. Raises what it raises, or TimeoutError when the request's budget ends first.

    Runs on: request greenlet; switches.
    """
    from .side_loop import side_loop

    return side_loop.run(coroutine)


def _install_in_asyncio(module: Any) -> None:
    from . import own_loops

    own_loops.install()


def _install_in_flask(module: Any) -> None:
    original = module.Flask.async_to_sync

    @functools.wraps(original)
    def async_to_sync(app: Any, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if can_wait():
                return run(function(*args, **kwargs))
            return original(app, function)(*args, **kwargs)

        return call

    module.Flask.async_to_sync = async_to_sync


def _install_in_asgiref(module: Any) -> None:
    from .real import RealThreadPoolExecutor

    original = module.AsyncToSync.__call__

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if can_wait():
            return run(self.awaitable(*args, **kwargs))
        return original(self, *args, **kwargs)

    module.AsyncToSync.__call__ = call
    # The thread of sync_to_async(): a greenlet of the side loop's thread would never get its turn.
    module.SyncToAsync.single_thread_executor = RealThreadPoolExecutor(1)
