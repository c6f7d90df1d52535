"""sqlite3: a call that has to wait for a lock of the database's file waits in a real thread, and the loop goes on.

SQLite waits in C, so one writer that waits for somebody else within its transaction would stop all requests of the
worker, its own included, until every other writer's timeout is over. Whether a call has to wait is known when it is
made without patience (SQLite's busy timeout is 0 meanwhile); most don't, and are made where they are, as fast as ever.

    execute, commit  ─ without patience ─> done
                             │ SQLITE_BUSY: nothing has happened
                             └─> once more, with the connection's own timeout, in a thread ─> done, or "is locked"
    executemany, executescript, backup   in a thread at once: a part of them may have happened
    a query, or its fetchall, that took 10 ms of CPU or more the last time   in a thread at once (slow_statements)

So SQLite itself decides how long to wait, and when not to, because two wait for each other. A connection is used by one
thread at a time: others, greenlets or real threads, wait for it. Python's check of threads
(`check_same_thread`) is made here as there.
"""

import contextlib
import functools
import os
import sqlite3
import sys
import weakref
from collections.abc import Callable
from contextvars import copy_context
from math import ceil
from typing import Any

from .. import deadline, observing
from ..frames import Innermost, line_of
from ..in_flight import CURRENT, OWN, Wait
from ..insight import stacks
from ..replacements import Declined, Put, part
from .naming import request_route
from .slow_statements import LONGEST_TEXT
from .sqlite_statements import ABOUT_TIMEOUT, NOTHING, READS, RETURNS, kind_of, slow, timed, took
from .stdlib.locks import Lock
from .threads import Job, Threads, can_wait, get_thread_ident, own_record

PLAIN_CONNECTION: Any = sqlite3.Connection
PLAIN_CURSOR: Any = sqlite3.Cursor
# Calls that wait at the same time; each has a thread, which sleeps.
WAITING = 256
DEFAULT_TIMEOUT_SECONDS = 5.0
# The positions of sqlite3.connect().
TIMEOUT, SAME_THREAD, FACTORY = 1, 4, 5
LOCKED = 5  # SQLITE_BUSY, without what extends it

threads = Threads(WAITING)
ALL_OF = "fetchall: "  # before a statement: the time that its rows take
# Connections of this process in a transaction, by id, weakly.
TRANSACTIONS: dict[int, Any] = {}
application = Innermost(lambda frame: stacks.is_installed(frame.f_code.co_filename))
_connection_of = PLAIN_CURSOR.connection.__get__


class Connection(PLAIN_CONNECTION):  # type: ignore[misc]
    """sqlite3.Connection. While a call of it waits in a thread, `_turn` is taken, and `_away_in` is the thread."""

    _timeout = 0.0
    _thread: int | None = None
    _name = _path = ""
    _began: tuple[Any, Any] | None = None  # the request whose transaction it is, and code and instruction
    _away_in = 0
    _is_patient = False  # until the next call: rows of a statement that writes are still to come

    def __init__(self, *args: Any, **options: Any) -> None:
        self._turn = Lock()
        timeout = args[TIMEOUT] if len(args) > TIMEOUT else options.get("timeout", DEFAULT_TIMEOUT_SECONDS)
        if len(args) > SAME_THREAD:
            is_for_one_thread = args[SAME_THREAD]
            args = (*args[:SAME_THREAD], False, *args[SAME_THREAD + 1 :])
        else:
            is_for_one_thread = options.get("check_same_thread", True)
            options["check_same_thread"] = False
        super().__init__(*args, **options)
        self._thread = get_thread_ident() if is_for_one_thread else None
        self._path, self._name = _file(args[0] if args else options.get("database"))
        self._timeout = float(timeout)
        self._set_patience(0.0)

    def cursor(self, factory: Any = None) -> Any:
        self._check()
        return super().cursor(Cursor if factory is None else factory)

    # As Python's, which are in C and don't ask the cursor that they make.

    def execute(self, *args: Any) -> Any:
        if type(self).cursor is not Connection.cursor:
            return self.cursor().execute(*args)
        return PLAIN_CONNECTION.cursor(self, Cursor).execute(*args)  # which checks the thread

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return self.cursor().executescript(*args)

    def commit(self) -> None:
        self._call(super().commit)

    def rollback(self) -> None:
        self._call(super().rollback)

    def close(self) -> None:
        self._check()
        super().close()
        self._began = None
        TRANSACTIONS.pop(id(self), None)

    def blobopen(self, *args: Any, **options: Any) -> Any:
        return self._call(functools.partial(super().blobopen, *args, **options))

    def backup(self, *args: Any, **options: Any) -> None:
        self._call_in_thread(functools.partial(super().backup, *args, **options))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Any:
        if getattr(self, "autocommit", None) is True:  # since Python 3.12
            return super().__exit__(kind, error, trace)
        if kind is not None:
            self.rollback()
            return False
        try:
            self.commit()
        except BaseException:
            self.rollback()
            raise
        return False

    @property
    def isolation_level(self) -> Any:
        return PLAIN_CONNECTION.isolation_level.__get__(self)

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        if level is None and self.in_transaction:
            self.commit()  # which Python would do
        PLAIN_CONNECTION.isolation_level.__set__(self, level)

    def _check(self) -> None:
        """Raise what Python raises in another thread than the connection's, and wait for a call in a thread of ours."""
        here = get_thread_ident()
        if self._turn.locked() and here != self._away_in:
            self._take_turn()
            self._turn.release()
        if self._thread is not None and here != self._thread and here != self._away_in:
            raise sqlite3.ProgrammingError(
                "SQLite objects created in a thread can only be used in that same thread. "
                f"The object was created in thread id {self._thread} and this is thread id {here}."
            )

    def _take_turn(self) -> None:
        """Runs on: any greenlet, any thread; switches. Its holder gives it back in its own time."""
        if not self._turn.try_quickly():
            with deadline.unbounded(), Wait("lock", f"sqlite {self._name}", OWN):
                self._turn.wait_for(-1, is_endable=False)

    def _call(self, call: Callable[[], Any], statement: str = "") -> Any:
        self._check()
        if self._is_patient:
            self._set_patience(0.0)
        try:
            if statement in slow.known:
                return self._call_in_thread(functools.partial(timed, call, statement))
            value = took.call(call, statement) if statement else call()
            if self.in_transaction is not (self._began is not None):
                self._note()
            return value
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != LOCKED or not self._timeout or get_thread_ident() == self._away_in:
                raise
        return self._call_in_thread(call)

    def _call_in_thread(self, call: Callable[[], Any]) -> Any:
        """The call, with the connection's own timeout, or what is left of the request's time."""
        self._check()
        if get_thread_ident() == self._away_in:
            return call()  # of a function of the application's, which SQLite calls
        self._take_turn()
        patient = functools.partial(self._with_patience, deadline.limit(self._timeout) or 0.0, call)
        if not can_wait():
            try:
                return patient()
            finally:
                self._turn.release()
        try:
            context = copy_context()
            context.run(own_record)
            job = threads.submit(functools.partial(context.run, patient), landed=self._came_back)
        except BaseException:
            self._turn.release()
            raise
        _wait_for(job, self._waits_for())
        try:
            return job.result()
        except sqlite3.OperationalError:
            deadline.is_refused()  # if the request's time is over, this was its first end
            raise
        finally:
            job.error = None  # its traceback refers to this frame
            if self.in_transaction is not (self._began is not None):
                self._note()

    def _note(self) -> None:
        """Remember who has begun a transaction, and where; or that it is over."""
        if not self.in_transaction:
            self._began = None
            TRANSACTIONS.pop(id(self), None)
            return
        frame = application.find()
        record = CURRENT.get()
        route = "" if record is None else request_route(record)
        self._began = (route, frame and (frame.f_code, frame.f_lasti))
        TRANSACTIONS[id(self)] = weakref.ref(self)

    def _waits_for(self) -> str:
        """The file, and a line of this process that has begun a transaction in it, if any has."""
        for reference in list(TRANSACTIONS.values()):
            other = reference()
            if other is None or other is self or other._path != self._path or other._began is None:
                continue
            if other._turn.locked():
                continue  # it waits itself
            route, line = other._began
            place = f"{stacks.shortened(line[0].co_filename)}:{line_of(*line)}" if line else "a library"
            return f"{self._name}, in a transaction since {place}{f' ({route})' if route else ''}"
        return self._name

    def _with_patience(self, seconds: float, call: Callable[[], Any]) -> Any:
        self._away_in = get_thread_ident()
        self._set_patience(seconds)
        try:
            return call()
        finally:
            self._set_patience(0.0)
            self._away_in = 0

    def _came_back(self, job: Job) -> None:
        """Runs on: hub."""
        self._turn.release()

    def _set_patience(self, seconds: float) -> None:
        with contextlib.suppress(sqlite3.DatabaseError):  # closed, or the application's authorizer does not let us
            _plain(self, f"PRAGMA busy_timeout = {ceil(seconds * 1000)}")
            self._is_patient = False

    def _be_patient(self) -> None:
        """The last rows of a statement that writes end its transaction, which may have to wait. It is not moved."""
        self._set_patience(self._timeout)
        self._is_patient = True

    def _pragma(self, call: Callable[[], Any]) -> Any:
        """The application asks for its timeout, or sets another."""
        self._check()
        self._set_patience(self._timeout)
        try:
            return call()
        finally:
            (milliseconds,) = _plain(self, "PRAGMA busy_timeout").fetchone()[:1]
            self._timeout = milliseconds / 1000
            self._set_patience(0.0)


class Cursor(PLAIN_CURSOR):  # type: ignore[misc]
    """sqlite3.Cursor."""

    _statement = ""

    def execute(self, *args: Any) -> Any:
        connection = _connection_of(self)
        if not isinstance(connection, Connection):
            return super().execute(*args)
        sql = args[0] if args else None
        kind, statement = NOTHING, ""
        if type(sql) is str:
            kind = kind_of(sql) if len(sql) < LONGEST_TEXT else kind_of.__wrapped__(sql)
            # Nobody waits for a reader, as writers of the other requests would for one that is away in a thread.
            if kind & READS and not connection.in_transaction:
                statement = sql
            if observing.on_statement is not None:
                record = CURRENT.get()
                if record is not None:
                    observing.on_statement(record, sql)
        elif isinstance(sql, str):
            kind = kind_of.__wrapped__(str.__str__(sql))
        call = functools.partial(super().execute, *args)
        if kind & ABOUT_TIMEOUT:
            return connection._pragma(call)
        self._statement = statement
        value = connection._call(call, statement)
        if kind & RETURNS and self.description is not None and not connection.in_transaction:
            connection._be_patient()
        return value

    def fetchall(self) -> Any:
        connection = _connection_of(self)
        if not isinstance(connection, Connection) or not self._statement:
            return super().fetchall()
        return connection._call(super().fetchall, f"{ALL_OF}{self._statement}")

    def executemany(self, *args: Any) -> Any:
        return self._call_in_thread(functools.partial(super().executemany, *args))

    def executescript(self, *args: Any) -> Any:
        return self._call_in_thread(functools.partial(super().executescript, *args))

    def _call_in_thread(self, call: Callable[[], Any]) -> Any:
        connection = _connection_of(self)
        return connection._call_in_thread(call) if isinstance(connection, Connection) else call()


def _plain(connection: Any, sql: str) -> Any:
    """Past the application's row factories, and past our own cursors."""
    return PLAIN_CURSOR(connection).execute(sql)


def _wait_for(job: Job, name: str) -> None:
    """Until `job` is done: the connection's timeout bounds it, and the request's time where that is shorter."""
    while not job.is_done:
        with deadline.unbounded():
            job.wait("lock", f"sqlite {name}", None)


def _file(database: Any) -> tuple[str, str]:
    """The path of a database's file, and its name."""
    try:
        path = os.path.abspath(os.fsdecode(database)).partition("?")[0]
    except (TypeError, ValueError, FileNotFoundError):  # the last where the working directory has been deleted
        return "", ""
    return path, os.path.basename(path)


@functools.wraps(sqlite3.connect)
def connect(*args: Any, **options: Any) -> Any:
    if len(args) <= FACTORY and "factory" not in options:
        options["factory"] = Connection
    return _plain_connect(*args, **options)


_plain_connect = sqlite3.connect


@part("sqlite3")
def install(put: Put) -> None:
    """Runs on: the main thread, when sqlite3 has been imported."""
    if not sqlite3.threadsafety:
        raise Declined("this SQLite can't be used by several threads")
    for where in (sqlite3, sys.modules["sqlite3.dbapi2"]):
        for name, ours in (("Connection", Connection), ("Cursor", Cursor), ("connect", connect)):
            put(where, name, ours)


for _ours in (Connection, Cursor, connect):
    _ours.__module__ = "sqlite3"
