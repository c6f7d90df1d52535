"""sqlite3's statements: the kind of each, which has to be known before it is made, and how long each computes."""

import functools
import re
import sqlite3
import time
from typing import Any

from .. import clock
from . import sqlite_transactions as transactions
from .slow_statements import LONGEST_TEXT, MOST_STATEMENTS, SLOW_SECONDS, SlowStatements
from .threads import get_thread_ident

READING = re.compile(r"\s*(select|with|values)\b", re.IGNORECASE)
ABOUT = re.compile(r"(?>\s+|--[^\n]*\n|/\*.*?\*/)*+pragma\b.*busy_timeout", re.IGNORECASE | re.DOTALL)
RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)
NOTHING, READS, RETURNS, ABOUT_TIMEOUT, OTHER = 0, 1, 2, 4, 8  # see kind_of
WRITES = "writes"  # what a cursor has in a query's stead, if rows of a statement that writes are still to come
GOOD_SECONDS = 0.002
_execute, _fetchall = sqlite3.Cursor.execute, sqlite3.Cursor.fetchall  # C's: this is imported before ours are put there

slow, slow_rows = SlowStatements(), SlowStatements()  # those that take long, and those whose rows do, at once


# Of plain statements that are not too long: a dict, because a look into it is felt.
KINDS: dict[str, int] = {}


def kind_of(sql: str) -> int:
    """Return the kind of a statement, which has to be known before it is made."""
    text = str.__str__(sql)  # past whatever a class of the application's may do
    is_about_timeout = "busy_timeout" in text.lower() and ABOUT.match(text)
    is_read, may_return = type(sql) is str and READING.match(text), RETURNING.search(text)
    kind = (READS if is_read else 0) | (RETURNS if may_return else 0) | (ABOUT_TIMEOUT if is_about_timeout else 0)
    if type(sql) is str and len(sql) < LONGEST_TEXT:
        if len(KINDS) >= MOST_STATEMENTS:
            KINDS.clear()
        KINDS[sql] = kind or OTHER
    return kind


class Said:
    """What a thread's CPU time was at a moment."""

    __slots__ = ("at", "cpu", "thread")

    def __init__(self, at: float) -> None:
        self.at = at
        self.thread = get_thread_ident()
        self.cpu = time.thread_time()


class Took:
    """How long statements compute, which is asked of the system for those only that take long on the clock: it takes a
    while to say how much CPU a thread has had, so what it said is good for `GOOD_SECONDS`.

    What a busy machine or the interpreter's lock adds is not the statement's doing.
    """

    def __init__(self) -> None:
        self.said = Said(-GOOD_SECONDS)

    def ask(self, now: float) -> Said:
        self.said = said = Said(now)
        return said

    def long(self, known: SlowStatements, statement: str, began: float, said: Said) -> None:
        """A statement has taken long on the clock: `said` is from when it began, or shortly before."""
        known.took(statement, max(0.0, time.thread_time() - said.cpu - (began - said.at)))


took = Took()


def compute(connection: Any, cursor: Any, known: SlowStatements, statement: str, parameters: Any = ()) -> Any:
    """A query that is `slow` or not; or its rows, where that is `slow_rows`: in a thread where it is known to be."""
    if connection._is_patient:
        connection._set_patience(0.0)
    if statement in known.known:
        return connection._call_in_thread(functools.partial(timed, known, cursor, statement, parameters))
    began, said = clock.now(), took.said
    if began - said.at > GOOD_SECONDS or said.thread != get_thread_ident():
        said = took.ask(began)
    try:
        return _execute(cursor, statement, parameters) if known is slow else _fetchall(cursor)
    except sqlite3.OperationalError as exc:
        if not connection._has_to_wait(exc):
            raise
    finally:
        if clock.now() - began >= SLOW_SECONDS:
            took.long(known, statement, began, said)
        if connection._began is not None:
            transactions.note(connection)  # its transaction is over
    return connection._call_in_thread(functools.partial(timed, known, cursor, statement, parameters))


def timed(known: SlowStatements, cursor: Any, statement: str, parameters: Any) -> Any:
    """The same, in a thread."""
    began = time.thread_time()
    try:
        return _execute(cursor, statement, parameters) if known is slow else _fetchall(cursor)
    finally:
        known.took(statement, time.thread_time() - began)
