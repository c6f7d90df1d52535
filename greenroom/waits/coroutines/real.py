"""Unpatched parts for real threads: selectors, executors, and threads that they start."""

import selectors
from _queue import SimpleQueue  # gevent replaces queue.SimpleQueue; here real threads must block
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from gevent import monkey

from ..threads import start_thread

new_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
# Under patching `selectors` has only gevent's, which needs a hub.
RealSelector: type[selectors.BaseSelector] = monkey.get_original("selectors", "DefaultSelector")
# As asyncio's own default executor has at most.
EXECUTOR_THREADS = 32


class RealPollSelector(selectors.PollSelector):
    """selectors.PollSelector, on the system's poll()."""

    _selector_cls = staticmethod(monkey.get_original("select", "poll"))


class RealSelectSelector(selectors.SelectSelector):
    """selectors.SelectSelector, on the system's select()."""

    _select = staticmethod(monkey.get_original("select", "select"))


def real_selector(patched: Any) -> selectors.BaseSelector | None:
    """A selector for a real thread instead of `patched`, as like as may be; None if that is real already, or no one's.

    Runs on: any thread.
    """
    kind = type(patched)
    if kind.__module__ == "gevent.selectors":
        return RealSelector()
    if kind is selectors.PollSelector:
        return RealPollSelector()
    if kind is selectors.SelectSelector:
        return RealSelectSelector()
    return None


class RealThreadPoolExecutor(ThreadPoolExecutor):
    """concurrent.futures.ThreadPoolExecutor, whose threads are no greenlets under patching.

    They don't hold up the end of the process. Runs on: any thread.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._limit = limit
        self._open_calls = 0
        self._started_threads = 0
        self._is_shut = False
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._counting = new_lock()
        self._ended: list[Any] = []  # of each thread, a lock that is free when it has ended

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._counting:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._open_calls += 1
            is_thread_missing = self._started_threads < min(self._open_calls, self._limit)
            self._started_threads += is_thread_missing
        if is_thread_missing:
            ended = new_lock()
            ended.acquire()
            self._ended.append(ended)
            start_thread(self._work, (ended,))
        self._calls.put((future, partial(function, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End its threads when they have done what is there to do; `wait` until then blocks the thread."""
        with self._counting:
            is_first, self._is_shut = not self._is_shut, True
        if cancel_futures:
            while not self._calls.empty():
                if (call := self._calls.get()) is not None:
                    call[0].cancel()
        if is_first:
            for _ in range(self._started_threads):
                self._calls.put(None)
        if wait:
            for ended in self._ended:
                with ended:
                    continue

    def _work(self, ended: Any) -> None:
        try:
            while (job := self._calls.get()) is not None:
                future, call = job
                if future.set_running_or_notify_cancel():
                    try:
                        value = call()
                    except BaseException as exc:  # whatever it is, it is for the one who asked
                        future.set_exception(exc)
                    else:
                        future.set_result(value)
                        del value
                del future, call, job
                with self._counting:
                    self._open_calls -= 1
        finally:
            ended.release()
