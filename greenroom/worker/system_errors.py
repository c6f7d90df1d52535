"""An exit that a greenlet of the application's raises drains the worker; gevent ends it with all requests in flight.

gevent throws SystemExit, KeyboardInterrupt and SystemError of a greenlet that nobody waits for into the main greenlet,
which is where the worker lives. The process is to end, and does; the requests beside have nothing to do with it.

A thread's SystemExit ends that thread alone, as in CPython: see waits/starting.py.
"""

import logging
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gevent import get_hub, spawn
from gevent.hub import Hub
from greenlet import getcurrent

from .. import forking, replacements
from ..insight.greenlets import spawner_of

logger = logging.getLogger("gunicorn.error")


class SystemErrors:
    """Of one worker. `is_serving`: whether requests may be in flight; `drain`: begins to end the worker."""

    def __init__(self, is_serving: Callable[[], bool], drain: Callable[[], None]) -> None:
        self.is_serving = is_serving
        self.drain = drain
        self.hub = get_hub()
        self.plain: Callable[..., Any] = Hub.handle_system_error

    def install(self) -> None:
        """Runs on: worker start-up, in the main greenlet."""

        def handle_system_error(hub: Hub, kind: Any, value: Any, tb: TracebackType | None = None) -> Any:
            is_exit = isinstance(value, Hub.SYSTEM_ERROR)
            if hub is not self.hub or not is_exit or not self.is_serving() or forking.is_child():
                return self.plain(hub, kind, value, tb)
            if getcurrent() is hub:
                return spawn(self._end, "a callback of the loop", value)  # a log may wait, which the loop can't
            return self._end(f"a greenlet started at {spawner_of(getcurrent())}", value)

        replacements.put("system_errors", (Hub, "handle_system_error", handle_system_error))

    def _end(self, whose: str, exc: BaseException) -> None:
        self.drain()
        logger.error(
            "%s ends the process: worker %s drains. To end only a greenlet, let it return, or raise GreenletExit",
            whose,
            os.getpid(),
            exc_info=exc,
        )
