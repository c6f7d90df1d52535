"""psycopg2 waiting in the event loop: libpq asks us to wait for its socket, and we let other greenlets run meanwhile.

Without this a query stops its whole worker, because libpq waits in C where patching does not reach.

    psycopg2.connect -> names resolved in the event loop -> GreenConnection -> GreenCursor
    execute -> in use by somebody else? wait for a turn (two_users) -> budget spent? raise
            -> psycopg2's BEGIN, sent here with one setting (begin) -> the statement, by psycopg2
            -> wait (query_wait.py): ended with the request, then cancelled in PostgreSQL
    commit, rollback -> the same, and not bounded by the budget: they are clean-up
    COPY -> copying.py

Statements, transactions and errors are psycopg2's own. A class of connections or cursors that the application brings
gets ours below it; where that can't be, it only waits. Source: psycopg2's documentation, "Support for coroutine
libraries".
"""

import logging
import weakref
from functools import lru_cache, partial
from typing import Any, NoReturn, Self

import psycopg2
from psycopg2 import _psycopg, extensions
from psycopg2.errors import InvalidParameterValue, QueryCanceled, UndefinedObject

from .. import clock, deadline, forking
from ..in_flight import CLEAN_UP, CURRENT, SHIELD
from ..replacements import Put, part
from . import connect_failures, copying, peers, two_users
from .libpq import STATUS_OFFSET, status_of
from .query_wait import QueryWait, place
from .resolving import connect_timeout_seconds, with_addresses
from .unclosed_connections import left_open

# A ROLLBACK that is not answered by then: the connection is closed, which rolls back too.
ROLLBACK_SECONDS = 2.0
# How often PostgreSQL looks, while a statement runs, whether this process still lives.
CHECKING = "SET LOCAL client_connection_check_interval='2s'"
CHECKING_VERSION = 140_000
LEVELS = {1: "READ COMMITTED", 2: "REPEATABLE READ", 3: "SERIALIZABLE", 4: "READ UNCOMMITTED"}  # psycopg2's numbers
UNKNOWN_SETTING = UndefinedObject, InvalidParameterValue  # of a server that does not know it, or can't do it
BEGIN = "BEGIN"
can_check_client = [True]  # of all servers of this process
STATUS_READY, STATUS_BEGIN = extensions.STATUS_READY, extensions.STATUS_BEGIN
logger = logging.getLogger(__name__)
psycopg2_connect = psycopg2._connect  # type: ignore[attr-defined]  # private; one test holds it fast
REPLICATION = _psycopg.ReplicationConnection, _psycopg.ReplicationCursor  # they speak another protocol
connections: "weakref.WeakSet[GreenConnection]" = weakref.WeakSet()  # for the day that this process forks


class WaitCallback:
    """The callback of psycopg2 for every step of connecting and of each query.

    `silence_seconds`: how long PostgreSQL may say nothing at all before its connection is given up. A statement that
    merely takes long is `statement_timeout`'s to end; this one catches a server that stopped or vanished.
    """

    def __init__(self, silence_seconds: float) -> None:
        self.silence_seconds = silence_seconds

    def __call__(self, connection: Any) -> None:
        """Wait until libpq has what it needs.

        Raises psycopg2.OperationalError when a new connection takes longer than its connect_timeout, the server is
        silent for too long, or the request's time is over; psycopg2 then closes the connection, so no later query can
        meet the late answer.
        Runs on: any greenlet; switches.
        """
        if connection.status == extensions.STATUS_SETUP:
            self._connect(connection)
        elif isinstance(connection, GreenConnection):
            line = connection.greenroom_line
            silence_seconds = line.silence_seconds or self.silence_seconds
            line.statements += 1
            line.wait(connection, connection.poll, silence_seconds, is_connecting=False)
            if line.copying is not None and line.copying.converse():
                line.wait(connection, connection.poll, silence_seconds, is_connecting=False)
        else:
            line = QueryWait()
            try:
                line.wait(connection, connection.poll, self.silence_seconds, is_connecting=False)
            finally:
                line.release()

    def _connect(self, connection: Any) -> None:
        # libpq's own connect_timeout has no effect while a callback is installed, so it is kept here.
        seconds = connect_timeout_seconds(connection.dsn)
        line = QueryWait()
        name = place(connection)
        peer = peers.of(name)
        peer.is_database = True
        peer.tried_at = clock.now()
        try:
            line.wait(connection, connection.poll, seconds, is_connecting=True)
        except psycopg2.OperationalError as exc:
            peers.failed(name, connect_failures.kind_of(exc), str(exc))
            connect_failures.name_place(exc, name)
            raise
        finally:
            line.release()
        peer.heard_at = clock.now()
        if isinstance(connection, GreenConnection):
            connection.greenroom_line.heard_at = peer.heard_at
            connection.greenroom_line.peer = peer


class GreenConnection(extensions.connection):
    """A connection as psycopg2.connect() gives it out: waits are bounded, and those who use it at once take turns.

    All that we keep is in one attribute, because the application's class above this one has names of its own.
    """

    greenroom_line: QueryWait

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Not in __init__: subclasses call psycopg2's own.
        self = super().__new__(cls, *args, **kwargs)
        self.greenroom_line = QueryWait()
        connections.add(self)
        return self

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = self.cursor_factory
        if not args and not kwargs and own is None and not self.closed:
            return GreenCursor(self)  # as psycopg2 makes it, which has a dozen arguments to look at first
        asked = args[1] if len(args) > 1 else kwargs.pop("cursor_factory", None)
        factory = over_ours(asked or own or extensions.cursor)
        name = args[0] if args else kwargs.pop("name", None)
        return super().cursor(name, factory, *args[2:], **kwargs)

    def __enter__(self) -> Self:
        two_users.take_turn(self.greenroom_line, "BEGIN")  # psycopg2 refuses a block within another one
        return super().__enter__()

    def commit(self) -> None:
        two_users.take_turn_to_clean_up(self.greenroom_line, "COMMIT")
        _clean_up(self.greenroom_line, "COMMIT", super().commit)

    def rollback(self) -> None:
        line = self.greenroom_line
        if line.has_ended_in_rollback:
            return
        two_users.take_turn_to_clean_up(line, "ROLLBACK")
        is_open = not self.closed
        line.silence_seconds = ROLLBACK_SECONDS
        try:
            if is_open and self.get_transaction_status() == extensions.TRANSACTION_STATUS_ACTIVE:
                copying.end(self)
            _clean_up(line, "ROLLBACK", super().rollback)
        except psycopg2.OperationalError as exc:
            if not (is_open and self.closed):
                raise
            # The connection has ended, and the transaction with it: what was asked for has happened. A caller that had
            # its answer already need not fail for this; the next user of the connection is told.
            line.has_ended_in_rollback = True
            logger.info("a connection ended before its ROLLBACK: %s", str(exc).strip())
        finally:
            line.silence_seconds = None

    def cancel(self) -> None:
        """Have what runs on this connection ended. psycopg2's own blocks the whole process meanwhile."""
        if self.closed:
            raise psycopg2.InterfaceError("connection already closed")
        if self.status == extensions.STATUS_PREPARED:
            raise psycopg2.ProgrammingError("cancel cannot be used with a prepared two-phase transaction")
        copying.cancel(self)

    def lobject(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise psycopg2.NotSupportedError(
            "large objects can't be used through psycopg2's lobject() in a green worker. Call the server's functions "
            "(lo_get(oid), lo_put(oid, offset, bytes), lo_from_bytea(0, bytes), lo_unlink(oid)), or store bytea"
        )

    def close(self) -> None:
        self.greenroom_line.release()
        super().close()

    def __del__(self) -> None:
        self.greenroom_line.release()


def _clean_up(line: QueryWait, sql: str, call: Any) -> None:
    """Run `call`, which may go on when the request's time is over. As deadline.shield(), which costs more."""
    line.sql = sql
    if CURRENT.get() is None or SHIELD.get() >= CLEAN_UP:
        call()
        return
    token = SHIELD.set(CLEAN_UP)
    try:
        call()
    finally:
        SHIELD.reset(token)


def prepare(connection: GreenConnection, query: Any) -> bool:
    """Before a statement is handed to psycopg2; whether that began a transaction. Raises psycopg2.Error."""
    line = connection.greenroom_line
    two_users.take_turn(line, query)
    line.sql = sql = query if isinstance(query, str) else str(query)
    if deadline.is_refused():
        raise QueryCanceled("the request's time is over; the statement was not sent")
    record = CURRENT.get()
    if connection.status == STATUS_READY:
        line.begun_for = None if record is None else weakref.ref(record)
        return begin(connection)
    if record is not None and line.begun_for is not None and line.begun_for() is not record:
        two_users.tell(line, record, sql)
    return False


def begin(connection: GreenConnection) -> bool:
    """Send the BEGIN that psycopg2 would send by itself, and let PostgreSQL look whether we are still there.

    That is for the day that this worker is killed: nobody would cancel its queries then. While it lives it cancels them
    when their request ends. A statement_timeout as long as the budget would do the same, but a budget can change or end
    while a statement runs, and that can't be told. The setting ends with the transaction: a session that is given to
    somebody else, by PgBouncer say, keeps nothing of it.

    False: left to psycopg2.
    """
    if (
        STATUS_OFFSET is None
        or not can_check_client[0]
        or connection.autocommit
        or connection.server_version < CHECKING_VERSION
        or not is_installed()  # the application has set a callback of its own: psycogreen's, say
    ):
        return False
    status_of(connection).value = STATUS_BEGIN
    line = connection.greenroom_line
    sql, line.sql = line.sql, BEGIN  # a wait that no other transaction can be the cause of
    try:
        with extensions.cursor(connection) as cursor:
            cursor.execute(f"{_begin_text(connection)};{CHECKING}")
    except BaseException as exc:
        take_back(connection)
        if not isinstance(exc, UNKNOWN_SETTING) or connection.closed:
            raise
        can_check_client[0] = False  # on a system that can't look, or of another make
        return False
    finally:
        line.sql = sql
    return True


def _begin_text(connection: GreenConnection) -> str:
    level, readonly, deferrable = connection.isolation_level, connection.readonly, connection.deferrable
    if level is readonly is deferrable is None:
        return "BEGIN"
    words = [
        "BEGIN",
        "" if level is None else f"ISOLATION LEVEL {LEVELS[level]}",
        "" if readonly is None else "READ ONLY" if readonly else "READ WRITE",
        "" if deferrable is None else "DEFERRABLE" if deferrable else "NOT DEFERRABLE",
    ]
    return " ".join(filter(None, words))


def take_back(connection: GreenConnection) -> None:
    """Nothing was run in the transaction that `begin` has begun, and psycopg2 would not have begun it."""
    if connection.closed:
        return
    if connection.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE:
        status_of(connection).value = STATUS_READY
    else:
        _clean_up(connection.greenroom_line, "ROLLBACK", partial(extensions.connection.rollback, connection))


class GreenCursor(extensions.cursor):
    """A cursor as connection.cursor() gives it out. It has no names of its own, for the same reason."""

    def execute(self, query: Any, vars: Any = None) -> None:
        if prepare(self.connection, query):  # type: ignore[arg-type]
            _run_first(self, super().execute, query, vars)
        else:
            super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        if prepare(self.connection, query):  # type: ignore[arg-type]
            _run_first(self, super().executemany, query, vars_list)
        else:
            super().executemany(query, vars_list)

    def callproc(self, procname: Any, *args: Any) -> Any:
        if prepare(self.connection, procname):  # type: ignore[arg-type]
            return _run_first(self, super().callproc, procname, *args)
        return super().callproc(procname, *args)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        copy_expert(self, sql, file, size)

    def copy_from(
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        size: int = 8192,
        columns: Any = None,
    ) -> None:
        copy_expert(self, copying.statement(self, table, columns, "FROM stdin", sep, null), file, size)

    def copy_to(self, file: Any, table: str, sep: str = "\t", null: str = "\\N", columns: Any = None) -> None:
        copy_expert(self, copying.statement(self, table, columns, "TO stdout", sep, null), file, 8192)


def _run_first(cursor: GreenCursor, call: Any, *args: Any) -> Any:
    """The first statement of a transaction. One that psycopg2 refuses to send has not begun any."""
    connection: Any = cursor.connection
    before = connection.greenroom_line.statements
    try:
        return call(*args)
    except BaseException:
        if connection.greenroom_line.statements == before:
            take_back(connection)
        raise


def copy_expert(cursor: GreenCursor, query: Any, file: Any, size: int) -> None:
    """psycopg2's `cursor.copy_expert`: COPY ... FROM STDIN reads `file`, COPY ... TO STDOUT writes it."""
    connection: Any = cursor.connection
    if not is_installed():
        extensions.cursor.copy_expert(cursor, query, file, size)  # says why not
        return
    two_users.take_turn(connection.greenroom_line, query)
    conversation = copying.begin(connection, file, size)
    try:
        if cursor.name is None:
            GreenCursor.execute(cursor, query)  # past what the application's class does: that is no execute() to it
        else:
            GreenCursor(connection).execute(query)
    finally:
        connection.greenroom_line.copying = None
    if conversation.problem is not None:
        raise conversation.problem


def over_ours(factory: Any) -> Any:
    """A class of psycopg2's or of the application's with ours below it; what is no such class stays as it is."""
    return _over_ours(factory) if isinstance(factory, type) else factory


@lru_cache(maxsize=100)
def _over_ours(factory: Any) -> Any:
    if factory is extensions.connection:
        return GreenConnection
    if factory is extensions.cursor:
        return GreenCursor
    is_done = issubclass(factory, (GreenConnection, GreenCursor, *REPLICATION))
    if is_done or not issubclass(factory, (extensions.connection, extensions.cursor)):
        return factory
    ours = GreenConnection if issubclass(factory, extensions.connection) else GreenCursor
    names = {"__module__": factory.__module__, "__qualname__": factory.__qualname__, "__doc__": factory.__doc__}
    try:
        return type(factory)(factory.__name__, (factory, ours), names)
    except TypeError as exc:
        logger.info("%s waits in the event loop, but without COPY and the like: %s", factory.__qualname__, exc)
        return factory


def connect(dsn: str, connection_factory: Any = None, **is_async: Any) -> Any:
    """In place of psycopg2's own: host names are looked up here, where others can run meanwhile."""
    if any(is_async.values()):
        return psycopg2_connect(dsn, connection_factory=connection_factory, **is_async)
    if deadline.is_refused():
        raise QueryCanceled("the request's time is over; no connection was opened")
    factory = over_ours(connection_factory or extensions.connection)
    try:
        connection = psycopg2_connect(with_addresses(dsn, connect_timeout_seconds(dsn)), connection_factory=factory)
    except psycopg2.OperationalError as exc:
        connect_failures.advise(exc)
        raise
    left_open.opened(connection)
    return connection


@part("psycopg2")
def install(put: Put, silence_seconds: float) -> None:
    """Make every psycopg2 connection of this process wait in the event loop."""
    extensions.set_wait_callback(WaitCallback(silence_seconds))
    put.use(extensions, "set_wait_callback", lambda: extensions.set_wait_callback(None))
    # Not psycopg2.connect: whoever holds that already gets this, too.
    put(psycopg2, "_connect", connect)
    forking.in_child(leave_to_parent)


def leave_to_parent() -> None:
    """In a forked child: let go of the parent's connections, so that none is used by two processes.

    Nothing is said to the server; using one here is an error. Their sockets' numbers stay taken, by nothing: libpq will
    close them, and must not close somebody else's.
    """
    for connection in list(connections):
        connection.greenroom_line.release()
    forking.release([connection.fileno() for connection in list(connections) if not connection.closed])
    connections.clear()


def is_installed() -> bool:
    return isinstance(extensions.get_wait_callback(), WaitCallback)
