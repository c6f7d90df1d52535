"""SQLite's busy timeout of a connection: none but while a call waits in a thread, and the application's own to see."""

import contextlib
import sqlite3
from collections.abc import Callable
from math import ceil
from typing import Any

from .threads import get_thread_ident

PLAIN_CURSOR: Any = sqlite3.Cursor  # C's: this is imported before ours are put there
Setter = Callable[..., None]
# What the application has set, by what sets it: the arguments without any, and its own.
Callbacks = dict[Setter, tuple[tuple[Any, ...], tuple[Any, ...]]]

# For whom a thread makes a call, by thread: functions that SQLite calls in it may use the caller's other connections.
CALLERS: dict[int, int] = {}


def call(connection: Any, seconds: float, function: Callable[[], Any], caller: int) -> Any:
    """Call `function` of the connection with a timeout of `seconds`. Runs on: mostly a thread of ours, for `caller`."""
    connection._away_in = here = get_thread_ident()
    before = CALLERS.get(here)
    CALLERS[here] = CALLERS.get(caller, caller)
    connection._set_patience(seconds)
    try:
        return function()
    finally:
        follow_timeout(connection, ceil(seconds * 1000))
        connection._away_in = 0
        if before is None:
            del CALLERS[here]
        else:
            CALLERS[here] = before


def follow(connection: Any, setter: Setter, *args: Any, **options: Any) -> None:
    """Set a callback of the application's that follows its statements, and must not see ours."""
    connection._check()
    setter(connection, *args, **options)
    own = (*args, *(options[name] for name in sorted(options, key="n".__eq__)))  # a handler's `n` is the last
    callbacks = {**connection._callbacks, setter: ((None, *own[1:]), own)}
    if own[0] is None:
        del callbacks[setter]
    connection._callbacks = callbacks


def set_timeout(connection: Any, seconds: float) -> None:
    with contextlib.suppress(sqlite3.DatabaseError):  # closed
        _ask_plainly(connection, f"PRAGMA busy_timeout = {ceil(seconds * 1000)}")


def pragma(connection: Any, call: Callable[[], Any]) -> Any:
    """The application asks for its timeout, or sets another."""
    connection._set_patience(connection._timeout)
    try:
        return call()
    finally:
        follow_timeout(connection, ceil(connection._timeout * 1000))


def follow_timeout(connection: Any, before: int) -> None:
    """Take over a timeout that the application has set meanwhile, `before` milliseconds before that."""
    with contextlib.suppress(sqlite3.DatabaseError):  # closed
        (milliseconds,) = _ask_plainly(connection, "PRAGMA busy_timeout").fetchone()[:1]
        if milliseconds != before:
            connection._timeout = milliseconds / 1000
    connection._set_patience(0.0)


def _ask_plainly(connection: Any, sql: str) -> Any:
    """Past the application's row factories, our own cursors, and the callbacks that follow its statements."""
    callbacks = connection._callbacks
    for setter, (nothing, _) in callbacks.items():
        setter(connection, *nothing)
    try:
        return PLAIN_CURSOR(connection).execute(sql)
    finally:
        for setter, (_, own) in callbacks.items():
            setter(connection, *own)
