"""Event loops that blocking code runs: each in a real thread, while the greenlet that asked waits.

asyncio knows one running loop for each thread of the operating system, and all our greenlets are in one. So none runs
there: asyncio.run(), Runner, run_until_complete(), run_forever() and async views each have a thread, and a loop that is
made for them or was made by the caller, as under a server with threads. The rest stays asyncio's: its options, its
policy, how it ends the tasks that are left over, and whom it tells.
"""

import _socket
import asyncio
import functools
import socket
import threading
from asyncio import base_events, runners, selector_events
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any

from ...deadline import raise_if_refused, unbounded
from ...in_flight import CURRENT
from ...replacements import Replace
from ..threads import Threads, can_wait, get_thread_ident, own_record
from .real import EXECUTOR_THREADS, RealSelector, RealThreadPoolExecutor, real_selector

# Loops that run at the same time; others wait for a thread.
LOOPS = 512
# How long a cancelled loop may take to stop before its owner goes on and closes it.
STOPPING_SECONDS = 1.0

threads = Threads(LOOPS)


class ThreadCall:
    """A greenlet's call in a thread. `loop` and `work` are known as soon as it runs there."""

    def __init__(self) -> None:
        self.loop: Any = None
        self.work: Any = None  # a future, a coroutine, or None where the loop runs for ever
        self.is_given_up = False

    def runs(self, loop: Any, work: Any) -> None:
        """Runs on: the loop's thread."""
        if self.loop is None:
            self.loop, self.work = loop, work
            if self.is_given_up:
                loop.call_soon(self._end)

    def give_up(self) -> None:
        """Nobody waits for it any more: what runs is cancelled. Runs on: the greenlet that asked."""
        self.is_given_up = True
        if self.loop is not None:
            try:
                self.loop.call_soon_threadsafe(self._end)
            except RuntimeError:
                pass  # it has just been closed

    def _end(self) -> None:
        """Runs on: the loop."""
        if self.work is None:
            self.loop.stop()
        elif asyncio.isfuture(self.work):
            self.work.cancel()
        else:
            for task in asyncio.all_tasks(self.loop):
                if task.get_coro() is self.work:
                    task.cancel()


class Visit(ThreadCall):
    """A call by asgiref's async_to_sync(). Its caller runs what the coroutine brings to `executor`."""

    def __init__(self) -> None:
        super().__init__()
        self.executor: Any = None
        self.over: Future[None] = Future()

    def begins(self, executor: Any) -> None:
        """Runs on: the loop, in the coroutine's task."""
        self.executor = executor
        self.runs(asyncio.get_running_loop(), asyncio.current_task())
        if self.is_given_up:
            self._refuse()

    def ends(self) -> None:
        """Runs on: the loop, in the coroutine's task."""
        if self.over.set_running_or_notify_cancel():
            self.over.set_result(None)

    def give_up(self) -> None:
        """Cancel it, and run what it still brings, for a moment: its clean-up. Runs on: the greenlet that asked."""
        if self.over.done():
            return
        super().give_up()
        if self.executor is None:
            return
        timer = threading.Timer(STOPPING_SECONDS, self.over.cancel)
        timer.daemon = True
        timer.start()
        try:
            with unbounded():
                self.executor.run_until_future(self.over)
        finally:
            timer.cancel()
            self._refuse()

    def _refuse(self) -> None:
        """Nobody is there any more who would run it: an error, and no wait for ever."""
        if self.executor is not None:
            self.executor._broken = True


# The call that each thread runs.
CALLS: dict[int, ThreadCall] = {}


def replace(put: Replace) -> None:
    run = _run_instead_of(runners.run)
    for module in (asyncio, runners):
        put(module, "run", run)
    loop_class: Any = base_events.BaseEventLoop
    put(loop_class, "run_until_complete", _run_until_complete_instead_of(loop_class.run_until_complete))
    put(loop_class, "run_forever", _run_forever_instead_of(loop_class.run_forever))
    put(loop_class, "run_in_executor", _run_in_executor_instead_of(loop_class.run_in_executor))
    put(loop_class, "getaddrinfo", getaddrinfo)
    selector_loop: Any = selector_events.BaseSelectorEventLoop
    put(selector_loop, "__init__", _init_instead_of(selector_loop.__init__))


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run `coroutine` and return its result; context variables that it sets are the caller's afterwards.

    Raises what it raises, or TimeoutError when the request's budget ends first. Runs on: request greenlet; switches.
    """
    context = copy_context()

    def call() -> Any:
        try:
            with asyncio.Runner() as runner:
                return runner.run(coroutine, context=context)
        finally:
            if asyncio.iscoroutine(coroutine):
                coroutine.close()  # there may have been no descriptors for a loop

    try:
        return _in_thread(call, context, coroutine)
    finally:
        bring_back(context)


def bring_back(context: Context) -> None:
    """Set the context variables of the caller to what the coroutine made of them."""
    for variable, value in context.items():
        if variable is not CURRENT and variable.get(None) is not value:
            variable.set(value)


def _run_instead_of(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(main: Any, **options: Any) -> Any:
        if not can_wait():
            return original(main, **options)
        context = copy_context()
        return _in_thread(functools.partial(context.run, original, main, **options), context, main)

    return run


def _run_until_complete_instead_of(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_until_complete(loop: Any, future: Any) -> Any:
        if loop.is_running() or loop.is_closed():
            return original(loop, future)
        _prepare(loop)
        if can_wait():
            context = copy_context()
            return _in_thread(functools.partial(context.run, original, loop, future), context, future, loop)
        _note(loop, future)
        return original(loop, future)

    return run_until_complete


def _run_forever_instead_of(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_forever(loop: Any) -> None:
        if loop.is_running() or loop.is_closed():
            original(loop)
            return
        _prepare(loop)
        if can_wait():
            context = copy_context()
            _in_thread(functools.partial(context.run, original, loop), context, None, loop)
        else:
            original(loop)

    return run_forever


def _note(loop: Any, work: Any) -> None:
    call = CALLS.get(get_thread_ident())
    if call is not None:
        call.runs(loop, work)


def _in_thread(call: Callable[[], Any], context: Context, work: Any, loop: Any = None) -> Any:
    """`call()`, whose `work` runs in `context`, in a thread; `loop` is the caller's own, if it has one."""
    name = getattr(work, "__qualname__", "event loop")
    try:
        raise_if_refused()
    except BaseException:
        if asyncio.iscoroutine(work):
            work.close()  # else Python warns that nobody has awaited it
        raise
    record = context.run(own_record)
    handle = ThreadCall()
    if loop is not None:
        handle.runs(loop, work)
    job = threads.submit(functools.partial(_call_as, threading.current_thread(), handle, call))
    try:
        job.wait("other", name, None)
        return job.result()
    finally:
        job.error = None  # its traceback refers to this frame
        if not job.is_done:
            if record is not None:
                record.is_given_up = True
            if threads.withdraw(job):
                if asyncio.iscoroutine(work):
                    work.close()
            else:
                handle.give_up()
                if loop is not None:
                    # Closing a loop that runs is an error.
                    with unbounded():
                        job.wait("other", "event loop", STOPPING_SECONDS)


def _call_as(thread: threading.Thread, handle: ThreadCall, call: Callable[[], Any]) -> Any:
    """`call()`, in a thread that passes for `thread`: libraries compare who runs their loop with who asks."""
    ident = get_thread_ident()
    CALLS[ident] = handle
    active: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]
    name, known = threading.get_ident(), thread.ident
    has_own = thread is not threading.main_thread() and type(thread).__name__ != "_DummyThread"
    if has_own:
        active[name] = thread
        thread._ident = name  # type: ignore[attr-defined]
    try:
        return call()
    finally:
        del CALLS[ident]
        if has_own:
            active.pop(name, None)
            thread._ident = known  # type: ignore[attr-defined]


def _prepare(loop: Any) -> None:
    """Give a loop that is about to run what it needs in a real thread."""
    old: Any = getattr(loop, "_selector", None)
    new = real_selector(old)
    if new is None:
        return
    loop._selector = new
    for key in list(old.get_map().values()):
        old.unregister(key.fileobj)
        new.register(key.fileobj, key.events, key.data)
    old.close()


def _init_instead_of(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(loop: Any, selector: Any = None) -> None:
        loop._closed = True  # for its destructor, if there is no descriptor for a selector
        own = RealSelector() if selector is None else None
        try:
            original(loop, selector if own is None else own)
        except BaseException:  # no descriptor for its pipe: its destructor would fail, and leave the selector open
            loop._closed = True
            if own is not None:
                own.close()
            raise

    return init


def _run_in_executor_instead_of(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_in_executor(loop: Any, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        if executor is None and loop._default_executor is None and not loop.is_closed():
            loop.set_default_executor(RealThreadPoolExecutor(EXECUTOR_THREADS))
        return original(loop, executor, function, *args)

    return run_in_executor


async def getaddrinfo(
    loop: Any, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[Any]:
    """libc's, in the executor. The patched one would make a hub in each of its threads."""
    found = await loop.run_in_executor(None, _socket.getaddrinfo, host, port, family, type, proto, flags)
    return [(socket.AddressFamily(entry[0]), socket.SocketKind(entry[1]), *entry[2:]) for entry in found]
