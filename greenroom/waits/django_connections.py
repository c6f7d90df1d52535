"""Django's connections end with their request.

Django keeps one for each thread, lets no other thread use it, and with CONN_MAX_AGE keeps it open for the thread's next
request. Here each request has a thread of its own (a greenlet), so there is none: each request would open a connection
and leave it. Where Django has a pool (OPTIONS pool), closing gives it back.
"""

import importlib
import inspect
import logging
from types import ModuleType
from typing import Any

from ..replacements import Put, part
from .naming import Once
from .threads import is_loop_thread

logger = logging.getLogger(__name__)
_told = Once()
TOLD = (
    "Django's CONN_MAX_AGE has no effect: it keeps a connection for a thread's next request, and each request has a "
    "thread of its own here. Connections are closed with their request; a pool (psycopg 3, OPTIONS pool) keeps them"
)


# Since Django 4.1: without those that nobody has used.
_INITIALIZED: dict[str, bool] = {}


@part("django")
def install(put: Put, module: ModuleType) -> None:
    """Runs on: whoever imports django.db."""
    signals: Any = importlib.import_module("django.core.signals")
    if "initialized_only" in inspect.signature(module.connections.all).parameters:
        _INITIALIZED["initialized_only"] = True
    signals.request_finished.connect(_finished, weak=False, dispatch_uid="greenroom")
    put.use(signals, "request_finished", lambda: signals.request_finished.disconnect(dispatch_uid="greenroom"))


def _finished(**_: Any) -> None:
    """Runs on: request greenlet, when its answer has been closed."""
    if not is_loop_thread():
        return
    database: Any = importlib.import_module("django.db")
    for connection in database.connections.all(**_INITIALIZED):
        if connection.in_atomic_block:
            continue  # a test's, which goes on
        if connection.settings_dict.get("CONN_MAX_AGE") != 0 and connection.connection is not None:
            _tell()
        connection.close()


def _tell() -> None:
    if _told.is_new("CONN_MAX_AGE"):
        logger.warning(TOLD)
