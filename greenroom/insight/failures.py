"""Exceptions that ended requests: class, message, the application's innermost line, route, since when, how many.

    Flask, Django      their signal `got_request_exception`, which comes before any error handler answers
    other frameworks   what escapes from the application to the server

An exception is seen once, in the greenlet of its request, and not kept: what is remembered are words. Its message is
redacted (see redaction.message), and asked for once a second for each line, however many there are.
"""

import errno
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import CodeType, TracebackType
from typing import Any

from .. import clock, redaction
from ..frames import line_of
from ..on_import import when_imported
from . import stacks
from .account import OTHER_ROUTE, Account

logger = logging.getLogger("gunicorn.error")

MOST_ROWS = 100
MOST_COUNTED = 200  # pairs of class and route; what is beyond is counted as "other"
LONGEST_CHAIN = 10
LONGEST_TRACEBACK = 1000
MESSAGE_SECONDS = 1.0
# Limits of the machine, by the errno that the error carries.
LIMITS = ("ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "EPIPE", "ENOMEM", "EAGAIN", "EROFS")


@dataclass(slots=True)
class Failure:
    """All exceptions of one class at one line. `root` is the class that began it, `began` that one's message where it
    is another one, `number` its errno's name; `last_at` is Unix time, `last_since` the same by the clock that
    measures."""

    name: str
    line: str
    route: str
    message: str = ""
    root: str = ""
    began: str = ""
    number: str = ""
    library: str = ""
    count: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    last_since: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Failures:
    """Those of one worker. Runs on: the greenlet that fails; anybody may read."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Failure] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.on_failed: Callable[[BaseException, Account], None] | None = None
        self._signals: list[Any] = []  # to which it listens

    def install(self) -> None:
        """Hear of what frameworks answer themselves. Runs on: worker start-up."""
        when_imported("flask.signals", self._listen)
        when_imported("django.core.signals", self._listen)

    def _listen(self, module: Any) -> None:
        try:
            module.got_request_exception.connect(self._told, weak=False)
            self._signals.append(module.got_request_exception)
        except (AttributeError, RuntimeError) as exc:  # Flask before 2.3 without blinker
            logger.info("exceptions that %s answers itself are counted and not named: %s", module.__name__, exc)

    def remove(self) -> None:
        while self._signals:
            self._signals.pop().disconnect(self._told)

    def _told(self, sender: Any = None, exception: BaseException | None = None, **more: Any) -> None:
        from ..in_flight import CURRENT

        exception = exception if exception is not None else sys.exc_info()[1]
        if exception is not None:
            self.failed(exception, CURRENT.get())

    def failed(self, exc: BaseException, record: Any) -> None:
        """A request has ended in `exc`. Never raises: the exception goes its own way."""
        if type(record) is not Account or record.has_failed:
            return
        record.has_failed = True
        try:
            self._note(exc, record.pattern())
            if self.on_failed is not None:
                self.on_failed(exc, record)
        except Exception:
            logger.exception("an exception could not be noted")

    def _note(self, exc: BaseException, route: str) -> None:
        name, now, at = class_name(exc), clock.now(), time.time()
        key = (name, place_of(exc), route)
        row = self.rows.get(key)
        if row is None:
            if len(self.rows) >= MOST_ROWS:
                del self.rows[min(self.rows, key=lambda one: self.rows[one].last_since)]
            row = self.rows[key] = Failure(*key, first_at=at)
        if not row.count or now - row.last_since > MESSAGE_SECONDS:
            row.message = message_of(exc)
            row.root, row.number = root_of(exc)
            row.began = message_of(first) if (first := list(chain(exc))[-1]) is not exc else ""
            row.library = library_of(exc)
        row.count += 1
        row.last_at, row.last_since = at, now
        pair = (name, route)
        if pair not in self.counts and len(self.counts) >= MOST_COUNTED:
            pair = ("other", OTHER_ROUTE)
        self.counts[pair] = self.counts.get(pair, 0) + 1

    def as_list(self) -> list[dict[str, Any]]:
        """The most frequent lately first."""
        return [row.as_dict() for row in sorted(list(self.rows.values()), key=_last, reverse=True)]

    def counted(self) -> dict[str, dict[str, Any]]:
        """By class and route, for counters that never fall."""
        return {
            f"{name} {route}": {"class": name, "route": route, "count": count}
            for (name, route), count in list(self.counts.items())
        }


def _last(row: Failure) -> float:
    return row.last_since


def class_name(exc: BaseException) -> str:
    """`module.Class`, without the module of Python's own."""
    kind = type(exc)
    module = kind.__module__
    return redaction.line(kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}")


def chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception, and what it was raised from, outermost first."""
    one: BaseException | None = exc
    for _ in range(LONGEST_CHAIN):
        if one is None:
            return
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def root_of(exc: BaseException) -> tuple[str, str]:
    """The class that began it, and the name of its errno: ("OSError", "ENOSPC")."""
    root = number = ""
    for one in chain(exc):
        root = class_name(one)
        code = one.errno if isinstance(one, OSError) else None
        if isinstance(one, MemoryError):
            number = "MemoryError"
        elif isinstance(code, int):
            number = errno.errorcode.get(code, number)
    return root, number


def message_of(exc: BaseException) -> str:
    try:
        return redaction.message(str(exc))
    except Exception as failed:  # the application's own __str__
        return f"(its message can't be told: {type(failed).__name__})"


def place_of(exc: BaseException) -> str:
    """`file:line` of the innermost call of the application's own, of the innermost library's where there is none."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{stacks.shortened(exc.filename)}:{exc.lineno or 0}"
    found = innermost = None
    for code, instruction in calls_of(exc):
        innermost = (code, instruction)
        if not stacks.is_installed(code.co_filename):
            found = innermost
    code_at = found or innermost
    if code_at is None:
        return ""
    return f"{stacks.shortened(code_at[0].co_filename)}:{line_of(*code_at)}"


def library_of(exc: BaseException) -> str:
    """The package whose code the application called when it was raised: "redis", "smtplib"; "" if it was none."""
    library = ""
    for code, _ in calls_of(exc):
        file = code.co_filename
        if not stacks.is_installed(file):
            library = ""
        elif not library:
            library = stacks.library_of(file)
    return library


def calls_of(exc: BaseException) -> Iterator[tuple[CodeType, int]]:
    traceback: TracebackType | None = exc.__traceback__
    for _ in range(LONGEST_TRACEBACK):
        if traceback is None:
            return
        yield traceback.tb_frame.f_code, traceback.tb_lasti
        traceback = traceback.tb_next
