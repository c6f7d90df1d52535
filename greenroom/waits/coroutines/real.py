"""What an event loop in a real thread needs instead of what is patched: a selector, an executor with real threads."""

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


class RealThreadPoolExecutor(ThreadPoolExecutor):
    """concurrent.futures.ThreadPoolExecutor, whose threads are no greenlets under patching.

    Its threads end with the process and hold nobody up. Runs on: any thread.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._limit = limit
        self._open_calls = 0
        self._started_threads = 0
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._counting = new_lock()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._counting:
            self._open_calls += 1
            is_thread_missing = self._started_threads < min(self._open_calls, self._limit)
            self._started_threads += is_thread_missing
        if is_thread_missing:
            start_thread(self._work, ())
        self._calls.put((future, partial(function, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: it serves as long as the process."""

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if future.set_running_or_notify_cancel():
                try:
                    value = call()
                except BaseException as exc:  # whatever it is, it is for the one who asked
                    future.set_exception(exc)
                else:
                    future.set_result(value)
                    del value
            del future, call
            with self._counting:
                self._open_calls -= 1
