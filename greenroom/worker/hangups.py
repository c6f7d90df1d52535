"""Errors that no code has caused: a client hung up or sent no body, so a wait of its request ended with an exception.

Frameworks log such an error with its traceback, and send it to Sentry; the worker has said all there is to say in one
line. An error is a consequence if it is the timeout error of a wait in a request of that kind, or comes of one:

    raise X from exc              always
    raise X, in `except`          where the very function raises it that caught the other, as drivers translate errors;
                                  unless it is one of Python's own that tell of a bug (KeyError, ZeroDivisionError)
    a class of timeouts           without any chain: `Condition.wait(20)` of such a request returns early, and pools say
                                  that they have waited for 20 s. Each library has a class of its own: its name counts

Whatever else is raised in such a request, by a `finally` say, is an error like any other.
"""

import functools
import queue
import subprocess
import sys
from types import ModuleType
from typing import Any

from ..errors import BudgetSpent
from ..in_flight import CLIENT_LEFT, CURRENT
from ..on_import import when_imported
from ..replacements import Put, part
from .client_errors import ClientLeft, ClientTooSlow
from .takeover import ClientsSocket

ENDS_OF_WAITS = (BudgetSpent, TimeoutError, queue.Empty, queue.Full, subprocess.TimeoutExpired)
CLIENTS_OWN = (ClientLeft, ClientTooSlow)
MOST_LINKS = 20  # of a chain of errors


def is_consequence(exc: BaseException | None, *, has_ended: bool = False) -> bool:
    """Whether `exc`, raised in the current request, only tells that its client left or sent no body.

    `has_ended`: or that its time was over, for whoever has said so already.
    """
    record = CURRENT.get()
    has_left = has_ended or (record is not None and record.cut_reason == CLIENT_LEFT)
    taken = record.environ.get("gunicorn.socket") if record is not None and record.environ is not None else None
    lost = None
    if isinstance(taken, ClientsSocket):
        lost = taken.lost
        has_left = has_left or taken.is_told
    for _ in range(MOST_LINKS):
        if exc is None:
            return False
        if exc is lost or isinstance(exc, CLIENTS_OWN) or (has_left and _is_end_of_wait(exc)):
            return True
        exc = exc.__cause__ or _translated(exc)
    return False


def _is_end_of_wait(exc: BaseException) -> bool:
    return isinstance(exc, ENDS_OF_WAITS) or any("timeout" in each.__name__.lower() for each in type(exc).__mro__)


def _translated(exc: BaseException) -> BaseException | None:
    """The error in whose place `exc` was raised by the function that caught it."""
    original = exc.__context__
    is_bug = type(exc).__module__ == "builtins" and not isinstance(exc, OSError)
    if original is None or is_bug:
        return None
    raised_in = None
    traceback = exc.__traceback__
    while traceback is not None:
        raised_in, traceback = traceback.tb_frame, traceback.tb_next
    traceback = original.__traceback__
    while traceback is not None:
        if traceback.tb_frame is raised_in:
            return original
        traceback = traceback.tb_next
    return None


def install() -> None:
    """Keep such errors from being reported. Runs on: worker start-up, before the application is imported."""
    when_imported("flask.app", _in_flask)
    when_imported("sentry_sdk.scope", _in_sentry)


@part("flask-errors")
def _in_flask(put: Put, module: ModuleType) -> None:
    """Flask.handle_exception sends a signal, which reporters wait for, and logs. Its error handlers run as ever."""
    flask: Any = module.Flask
    put(flask, "log_exception", _unless_consequence(flask.log_exception))
    put(module, "got_request_exception", _Signal(module.got_request_exception))


def _unless_consequence(plain: Any) -> Any:
    @functools.wraps(plain)
    def log_exception(self: Any, exc_info: Any) -> None:
        if not is_consequence(exc_info[1]):
            plain(self, exc_info)

    return log_exception


class _Signal:
    """blinker's signal, sent from this module; it stays silent for a consequence."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def send(self, *args: Any, **kwargs: Any) -> Any:
        return [] if is_consequence(kwargs.get("exception")) else self.plain.send(*args, **kwargs)


@part("sentry")
def _in_sentry(put: Put, module: ModuleType) -> None:
    """Its middleware and its handler of logging see errors on their own ways; all end in this public hook."""
    module.add_global_event_processor(_drop_consequence)
    put.use(module, "add_global_event_processor", lambda: module.global_event_processors.remove(_drop_consequence))


def _drop_consequence(event: Any, hint: Any) -> Any:
    exc_info = hint.get("exc_info") if hint else None
    if exc_info is None:
        exc_info = getattr(hint.get("log_record") if hint else None, "exc_info", None)
    exc = exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1]
    return None if is_consequence(exc) else event
