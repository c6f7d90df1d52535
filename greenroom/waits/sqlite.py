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

import functools
import sqlite3
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from .. import deadline, observing
from ..in_flight import CURRENT, OWN, Wait
from ..replacements import Declined, Put, part
from . import sqlite_patience as patience
from . import sqlite_rows
from . import sqlite_transactions as transactions
from .sqlite_statements import ABOUT_TIMEOUT, KINDS, NOTHING, READS, RETURNS, WRITES, compute, kind_of, slow, slow_rows
from .stdlib.locks import word
from .threads import Job, Threads, can_wait, get_thread_ident, own_record

PLAIN_CONNECTION: Any = sqlite3.Connection
PLAIN_CURSOR: Any = sqlite3.Cursor
Call = Callable[..., Any]
# Calls that wait at the same time; each has a thread, which sleeps.
WAITING = 256
DEFAULT_TIMEOUT_SECONDS = 5.0
# The positions of sqlite3.connect().
TIMEOUT, SAME_THREAD, FACTORY = 1, 4, 5
LOCKED = 5  # SQLITE_BUSY, without what extends it

# Longer ones are none at all in C, whose milliseconds are an int.
LONGEST_TIMEOUT_SECONDS = 2_147_483.0

threads = Threads(WAITING)
# As functions: what `super()` takes for each call is a fifth of what a short statement takes of ours.
_connection_of = PLAIN_CURSOR.connection.__get__
_init, _cursor, _commit, _rollback, _close = (
    getattr(PLAIN_CONNECTION, name) for name in ("__init__", "cursor", "commit", "rollback", "close")
)
_execute, _executemany, _fetchone, _fetchmany, _fetchall = (
    getattr(PLAIN_CURSOR, name) for name in ("execute", "executemany", "fetchone", "fetchmany", "fetchall")
)


class Connection(PLAIN_CONNECTION):  # type: ignore[misc]
    """sqlite3.Connection. While a call of it waits in a thread, `_turn` is taken, and `_away_in` is the thread.

    What each statement asks comes first, and in the function itself: a page of 50 short ones feels each call.
    """

    _timeout = 0.0
    _thread: int | None = None
    _name = _path = ""
    _began: tuple[Any, Any] | None = None  # the request whose transaction it is, and code and instruction
    _away_in = 0
    _callbacks: patience.Callbacks = {}
    _is_patient = False  # until the next call: rows of a statement that writes are still to come
    _is_taken: Callable[[], bool] = staticmethod(bool)  # not yet: there is no turn before `__init__`

    def __init__(self, *args: Any, **options: Any) -> None:
        timeout = args[TIMEOUT] if len(args) > TIMEOUT else options.get("timeout", DEFAULT_TIMEOUT_SECONDS)
        is_number = type(timeout) is float or type(timeout) is int
        if not is_number:
            pass  # C's to refuse, or to understand
        elif len(args) > TIMEOUT:
            args = (*args[:TIMEOUT], 0, *args[TIMEOUT + 1 :])
        else:
            options["timeout"] = 0
        if len(args) > SAME_THREAD:
            is_for_one_thread = args[SAME_THREAD]
            args = (*args[:SAME_THREAD], False, *args[SAME_THREAD + 1 :])
        else:
            is_for_one_thread = options.get("check_same_thread", True)
            options["check_same_thread"] = False
        _init(self, *args, **options)
        # From here: to be called again, which CPython lets, empties the object.
        self._turn = turn = word()
        self._is_taken = turn._block.locked
        self._callbacks = {}
        self._is_patient = False
        self._began = None
        self._thread = get_thread_ident() if is_for_one_thread else None
        self._path, self._name = transactions.file_of(args[0] if args else options.get("database"))
        seconds = float(timeout)
        self._timeout = seconds if seconds < LONGEST_TIMEOUT_SECONDS else 0.0
        if not is_number:
            self._set_patience(0.0)

    def cursor(self, *args: Any, **options: Any) -> Any:
        self._check()
        return _cursor(self, *args, **options) if args or options else _cursor(self, Cursor)

    # As Python's, which are in C and don't ask the cursor that they make.

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        if type(self) is not Connection and type(self).cursor is not Connection.cursor:
            return self.cursor().execute(sql, parameters)
        if observing.on_statement is not None and type(sql) is str:
            record = CURRENT.get()
            if record is not None:
                observing.on_statement(record, sql)
        return _run(_cursor(self, Cursor), self, sql, parameters)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return self.cursor().executescript(*args)

    def commit(self) -> None:
        self._call(_commit, (self,))

    def rollback(self) -> None:
        self._call(_rollback, (self,))

    def close(self) -> None:
        self._check()
        _close(self)
        if self._began is not None:
            transactions.ended(self)

    def blobopen(self, *args: Any, **options: Any) -> Any:
        return self._call(functools.partial(super().blobopen, *args, **options), ())

    def backup(self, *args: Any, **options: Any) -> None:
        self._call_in_thread(functools.partial(super().backup, *args, **options))

    def set_authorizer(self, *args: Any, **options: Any) -> None:
        patience.follow(self, PLAIN_CONNECTION.set_authorizer, *args, **options)

    def set_progress_handler(self, *args: Any, **options: Any) -> None:
        patience.follow(self, PLAIN_CONNECTION.set_progress_handler, *args, **options)

    def set_trace_callback(self, *args: Any, **options: Any) -> None:
        patience.follow(self, PLAIN_CONNECTION.set_trace_callback, *args, **options)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Any:
        if getattr(self, "autocommit", None) is True:  # since Python 3.12
            return super().__exit__(kind, error, trace)
        if kind is not None:
            Connection.rollback(self)  # Python does not ask the class for its own either
            return False
        try:
            Connection.commit(self)
        except BaseException:
            Connection.rollback(self)
            raise
        return False

    @property
    def isolation_level(self) -> Any:
        return PLAIN_CONNECTION.isolation_level.__get__(self)

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        if level is None and self.in_transaction:
            Connection.commit(self)  # which Python would do
        PLAIN_CONNECTION.isolation_level.__set__(self, level)

    if sys.version_info >= (3, 12):

        @property
        def autocommit(self) -> Any:
            return PLAIN_CONNECTION.autocommit.__get__(self)

        @autocommit.setter
        def autocommit(self, is_on: Any) -> None:
            self._call(PLAIN_CONNECTION.autocommit.__set__, (self, is_on))

    def _check(self) -> None:
        """Raise what Python raises in another thread than the connection's, and wait for a call in a thread of ours."""
        here = get_thread_ident()
        if self._is_taken() and here != self._away_in:
            self._take_turn()
            self._turn.release()
        if self._thread not in (None, here, patience.CALLERS.get(here)) and here != self._away_in:
            raise sqlite3.ProgrammingError(
                "SQLite objects created in a thread can only be used in that same thread. "
                f"The object was created in thread id {self._thread} and this is thread id {here}."
            )

    def _take_turn(self) -> None:
        """Runs on: any greenlet, any thread; switches. Its holder gives it back in its own time."""
        if not self._turn.try_quickly():
            with deadline.unbounded(), Wait("lock", f"sqlite {self._name}", OWN):
                self._turn.wait_for(-1, is_endable=False)

    def _call(self, function: Call, args: tuple[Any, ...]) -> Any:
        if self._is_taken() or (self._thread is not None and self._thread != get_thread_ident()):
            self._check()
        if self._is_patient:
            self._set_patience(0.0)
        try:
            value = function(*args)
        except sqlite3.OperationalError as exc:
            if not self._has_to_wait(exc):
                raise
        else:
            if self.in_transaction is not (self._began is not None):
                transactions.note(self)
            return value
        return self._call_in_thread(functools.partial(function, *args))

    def _has_to_wait(self, exc: sqlite3.OperationalError) -> bool:
        code = getattr(exc, "sqlite_errorcode", 0)  # none where Python raised it, or the application did
        return code & 0xFF == LOCKED and bool(self._timeout) and get_thread_ident() != self._away_in

    def _call_in_thread(self, call: Callable[[], Any], rows: sqlite_rows.Rows | None = None) -> Any:
        """The call, with the connection's own timeout, or what is left of the request's time."""
        self._check()
        here = get_thread_ident()
        if here == self._away_in:
            return call()  # of a function of the application's, which SQLite calls
        self._take_turn()
        patient = functools.partial(patience.call, self, deadline.limit(self._timeout) or 0.0, call, here)
        if not can_wait():
            try:
                return patient()
            finally:
                self._turn.release()
        try:
            context = copy_context()
            context.run(own_record)
            if rows is not None:
                rows.is_served = True
            came_back = functools.partial(self._came_back, rows)
            job = threads.submit(functools.partial(context.run, patient), landed=came_back)
        except BaseException:
            self._turn.release()
            raise
        (_wait_for if rows is None else rows.serve)(job, f"sqlite {transactions.waits_for(self)}")
        try:
            return job.result()
        except sqlite3.OperationalError:
            deadline.is_refused()  # if the request's time is over, this was its first end
            raise
        finally:
            job.error = None  # its traceback refers to this frame
            if self.in_transaction is not (self._began is not None):
                transactions.note(self)

    def _came_back(self, rows: sqlite_rows.Rows | None, job: Job) -> None:
        """Runs on: hub."""
        self._turn.release()
        if rows is not None:
            rows.came_back()

    def _set_patience(self, seconds: float) -> None:
        patience.set_timeout(self, seconds)
        self._is_patient = False

    def _be_patient(self) -> None:
        """The last rows of a statement that writes end its transaction, which may have to wait. Where they are iterated
        over, it is not moved."""
        self._set_patience(self._timeout)
        self._is_patient = True


class Cursor(PLAIN_CURSOR):  # type: ignore[misc]
    """sqlite3.Cursor. `_statement` is its query, where its rows may take long to compute, or WRITES."""

    __slots__ = ("_statement",)

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        try:
            connection = _connection_of(self)
        except AttributeError:
            connection = None  # its `__init__` was not called, which C says
        if not isinstance(connection, Connection):
            return _execute(self, sql, parameters)
        if observing.on_statement is not None and type(sql) is str:
            record = CURRENT.get()
            if record is not None:
                observing.on_statement(record, sql)
        return _run(self, connection, sql, parameters)

    def fetchone(self) -> Any:
        return _fetchone(self) if getattr(self, "_statement", "") is not WRITES else _fetch_written(self, _fetchone)

    def fetchmany(self, *args: Any, **options: Any) -> Any:
        if getattr(self, "_statement", "") is not WRITES:
            return _fetchmany(self, *args, **options)
        return _fetch_written(self, lambda cursor: _fetchmany(cursor, *args, **options))

    def fetchall(self) -> Any:
        statement = getattr(self, "_statement", "")
        if not statement:
            return _fetchall(self)
        if statement is WRITES:
            return _fetch_written(self, _fetchall)
        connection = _connection_of(self)
        connection._check()
        return compute(connection, self, slow_rows, statement)

    def executemany(self, *args: Any) -> Any:
        connection = _connection_of(self)
        if not isinstance(connection, Connection) or len(args) != 2:
            return _executemany(self, *args)
        rows = sqlite_rows.of(connection, args[1])
        call = functools.partial(_executemany, self, args[0], rows)
        return connection._call_in_thread(call, rows if type(rows) is sqlite_rows.Rows else None)

    def executescript(self, *args: Any) -> Any:
        connection = _connection_of(self)
        call = functools.partial(super().executescript, *args)
        return connection._call_in_thread(call) if isinstance(connection, Connection) else call()


def _run(cursor: Cursor, connection: Connection, sql: Any, parameters: Any) -> Any:
    """Execute a statement. A page of 50 short ones feels every call and every question, so there are few."""
    if connection._is_taken() or (connection._thread is not None and connection._thread != get_thread_ident()):
        connection._check()
    kind = KINDS.get(sql) if type(sql) is str else NOTHING
    if kind is None or (kind == NOTHING and isinstance(sql, str)):
        kind = kind_of(sql)
    # Nobody waits for a reader, as writers of the other requests would for one that is away in a thread.
    if kind & READS and not connection.in_transaction:
        cursor._statement = sql
        compute(connection, cursor, slow, sql, parameters)
    else:
        cursor._statement = ""
        if kind & ABOUT_TIMEOUT:
            connection._check()
            return patience.pragma(connection, functools.partial(_execute, cursor, sql, parameters))
        connection._call(_execute, (cursor, sql, parameters))
    if kind & RETURNS and cursor.description is not None and not connection.in_transaction:
        cursor._statement = WRITES
        connection._be_patient()
    return cursor


def _fetch_written(cursor: Cursor, fetch: Call) -> Any:
    """Rows of a statement that writes, in a thread: with the last one its transaction ends, which may have to wait."""
    connection = _connection_of(cursor)
    rows = connection._call_in_thread(functools.partial(fetch, cursor))
    if rows and fetch is not _fetchall:
        connection._be_patient()
    else:
        cursor._statement = ""
    return rows


def _wait_for(job: Job, name: str) -> None:
    """Until `job` is done: the connection's timeout bounds it, and the request's time where that is shorter."""
    while not job.is_done:
        with deadline.unbounded():
            job.wait("lock", name, None)


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
