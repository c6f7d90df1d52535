"""The application's signal handlers: they never run in the request that is interrupted by a signal.

Python runs a handler in the main thread, between two instructions of whatever runs there. In a worker that is any
request, or the loop. An exception out of the handler would end that one, and a SystemExit the worker with all requests
in flight. So, once the application is imported:

    an exception           is logged, and goes no further
    SystemExit,            the worker drains: who wrote `signal.signal(SIGTERM, lambda *_: sys.exit())` wants the
    KeyboardInterrupt      process to end, and gets that, with every request answered

One that comes while the loop itself runs is called in a greenlet of its own, so that it can wait: to say at a register
that this server goes, say.

While the application is imported, and in a forked child, it is the one program that runs, and gets the exception.
Handlers are installed in the main greenlet. Anywhere else `signal.signal` raises ValueError, as in a thread.
"""

import functools
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from greenlet import getcurrent

from .. import forking, replacements

logger = logging.getLogger("gunicorn.error")

# gevent's own keep handlers of SIGCHLD for its reaper; there is none here, see waits/children.py.
real_signal: Callable[..., Any] = monkey.get_original("signal", "signal")
real_getsignal: Callable[..., Any] = monkey.get_original("signal", "getsignal")
real_set_wakeup_fd: Callable[..., int] = signal.set_wakeup_fd

# CPython's words.
NOT_MAIN = "signal only works in main thread of the main interpreter"
WAKEUP_NOT_MAIN = "set_wakeup_fd only works in main thread of the main interpreter"


class Signals:
    """The handlers of one worker. `is_serving`: whether others than the main greenlet are at work."""

    def __init__(self, is_serving: Callable[[], bool], drain: Callable[[], None]) -> None:
        self.is_serving = is_serving
        self.drain = drain
        self.main: Any = getcurrent()
        self.guarded: dict[int, tuple[Any, Any]] = {}  # what Python calls, and what the application gave

    def install(self) -> None:
        """Runs on: worker start-up, in the main greenlet."""
        replacements.put(
            "signals", *((signal, name, getattr(self, name)) for name in ("signal", "getsignal", "set_wakeup_fd"))
        )

    def signal(self, signalnum: int, handler: Any, /) -> Any:
        self._refuse_elsewhere(NOT_MAIN)
        before = self.getsignal(signalnum)
        if not callable(handler) or isinstance(handler, signal.Handlers) or handler is signal.default_int_handler:
            real_signal(signalnum, handler)
            self.guarded.pop(signalnum, None)
            return before
        guard = self._guard(handler)
        real_signal(signalnum, guard)
        self.guarded[signalnum] = (guard, handler)
        return before

    def getsignal(self, signalnum: int, /) -> Any:
        current = real_getsignal(signalnum)
        guard, handler = self.guarded.get(signalnum, (None, None))
        return handler if guard is not None and current is guard else current

    def set_wakeup_fd(self, fd: int, /, **options: Any) -> int:
        self._refuse_elsewhere(WAKEUP_NOT_MAIN)
        return real_set_wakeup_fd(fd, **options)

    def _refuse_elsewhere(self, words: str) -> None:
        if getcurrent() is not self.main and not forking.is_child():
            raise ValueError(words)

    def _guard(self, handler: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(handler, assigned=("__doc__",), updated=())
        def handle(number: int, frame: Any) -> None:
            if self.is_serving() and getcurrent() is get_hub_if_exists() and not forking.is_child():
                gevent.spawn(call, number, frame)  # it may wait, which the loop can't
            else:
                call(number, frame)

        def call(number: int, frame: Any) -> None:
            try:
                handler(number, frame)
            except BaseException as exc:
                if forking.is_child() or (not self.is_serving() and getcurrent() is self.main):
                    raise
                self._belongs_to_nobody(number, exc)

        return handle

    def _belongs_to_nobody(self, number: int, exc: BaseException) -> None:
        name = signal.Signals(number).name
        if not self.is_serving():
            # The main greenlet imports the application, and waits for something right now.
            gevent.get_hub().loop.run_callback_threadsafe(self.main.throw, exc)
        elif isinstance(exc, SystemExit | KeyboardInterrupt):
            logger.info("the application's handler of %s ends the process: worker %s drains", name, os.getpid())
            self.drain()
        else:
            logger.error(
                "the application's handler of %s raised an error. It would have come up in whatever request happened "
                "to run, so it goes no further: bound calls by their own timeouts, not by signals",
                name,
                exc_info=exc,
            )
