"""One asyncio event loop for all requests of a process, in a real thread.

greenlet:   run(coroutine) ─ waits in gevent's loop ────────────────────────────────> result or error
                  │                                                                      ^
side loop:        └─> task, in a copy of the greenlet's context ─> its leftovers cancelled ┘
"""

import _socket
import asyncio
import logging
import os
import socket
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

from ...deadline import raise_if_refused
from ...record import CURRENT
from ..threads import Pending, Returns, own_record, start_thread
from .real import EXECUTOR_THREADS, RealSelector, RealThreadPoolExecutor

logger = logging.getLogger(__name__)

# For whom a task runs; tasks inherit it from the one that makes them.
CALL: ContextVar["Call | None"] = ContextVar("greenroom.coroutine", default=None)


class Call(Pending):
    """One coroutine that a greenlet waits for."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: Context, returns: Returns) -> None:
        super().__init__()
        self.coroutine = coroutine
        self.context = context
        self.returns = returns
        self.task: asyncio.Task[Any] | None = None
        self.others: set[asyncio.Task[Any]] = set()
        self.is_given_up = False
        context.run(CALL.set, self)

    def begin(self) -> None:
        """Runs on: side loop."""
        if self.is_given_up:
            self.coroutine.close()
            self.returns.post(self.arrive)
            return
        self.task = asyncio.get_running_loop().create_task(self.coroutine, context=self.context)
        self.others.discard(self.task)
        self.task.add_done_callback(self._ended)

    def give_up(self) -> None:
        """Runs on: side loop."""
        self.is_given_up = True
        if self.task is not None:
            self.task.cancel("the request's time was up")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """As at the end of asyncio.run(), what it leaves running is cancelled, and waited for."""
        left = [other for other in self.others if not other.done()]
        for other in left:
            other.cancel()
        if left:
            asyncio.gather(*left, return_exceptions=True).add_done_callback(lambda _: self._post(task))
        else:
            self._post(task)

    def _post(self, task: asyncio.Task[Any]) -> None:
        try:
            self.value = task.result()
        except BaseException as exc:  # CancelledError, SystemExit: all is for the one who asked
            self.error = exc
        self.task = None
        self.returns.post(self.arrive)


class SideEventLoop(asyncio.SelectorEventLoop):
    """asyncio's usual loop on primitives that are not patched."""

    def __init__(self) -> None:
        super().__init__(RealSelector())
        self.set_default_executor(RealThreadPoolExecutor(EXECUTOR_THREADS))
        self.set_task_factory(make_task)

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """libc's, in the executor. The patched one would make a hub in each of its threads."""
        found = await self.run_in_executor(None, _socket.getaddrinfo, host, port, family, type, proto, flags)
        return [(socket.AddressFamily(entry[0]), socket.SocketKind(entry[1]), *entry[2:]) for entry in found]


def make_task(loop: Any, coroutine: Any, *, context: Context | None = None, **named: Any) -> asyncio.Task[Any]:
    """A task as the loop makes it, noted with the call for which it runs."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context, **named)
    call = CALL.get() if context is None else context.get(CALL)
    if call is not None:
        call.others.add(task)
        task.add_done_callback(call.others.discard)
    return task


class SideLoop:
    """The loop and its thread, started when the first coroutine comes."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.pid = os.getpid()
        self.loop: SideEventLoop | None = None
        self.started: Pending | None = None
        self.returns = Returns()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs on: request greenlet; switches."""
        name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
        try:
            raise_if_refused()
            loop = self._running_loop()
        except BaseException:
            coroutine.close()  # else Python warns that nobody has awaited it
            raise
        context = copy_context()
        record = context.run(own_record)
        call = Call(coroutine, context, self.returns)
        self.returns.expect()
        loop.call_soon_threadsafe(call.begin)
        try:
            call.wait("other", name, None)
            return call.result()
        finally:
            if call.is_done:
                call.error = None  # its traceback refers to this frame
                bring_back(context)
            else:
                loop.call_soon_threadsafe(call.give_up)
                if record is not None:
                    record.is_given_up = True

    def _running_loop(self) -> SideEventLoop:
        if self.pid != os.getpid():
            self._begin()  # forked: the thread stayed behind
        if self.loop is None:
            if self.started is None:
                self.started = Pending()
                self.returns.expect()
                start_thread(self._serve, (self.started, self.returns))
            self.started.wait("other", "side loop", None)
            self.loop = self.started.result()
        return self.loop

    @staticmethod
    def _serve(started: Pending, returns: Returns) -> None:
        """Runs on: the side loop's thread, for ever."""
        try:
            loop = started.value = SideEventLoop()
        except BaseException as exc:
            started.error = exc
            returns.post(started.arrive)
            return
        asyncio.set_event_loop(loop)
        returns.post(started.arrive)
        while True:
            try:
                loop.run_forever()
            except BaseException:  # asyncio lets SystemExit of a task through; the others' coroutines must go on
                logger.exception("a task has tried to end the side loop; it goes on")


def bring_back(context: Context) -> None:
    """Set the context variables of the caller to what the coroutine made of them."""
    for variable, value in context.items():
        if variable is not CALL and variable is not CURRENT and variable.get(None) is not value:
            variable.set(value)


side_loop = SideLoop()
