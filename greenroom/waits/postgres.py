"""psycopg2 waiting in the event loop: libpq asks us to wait for its socket, and we let other greenlets run meanwhile.

Without this a query stops its whole worker, because libpq waits in C where patching does not reach.

    psycopg2.connect -> names resolved in the event loop -> GreenConnection -> GreenCursor
    execute -> in use by somebody else? both are named -> budget spent? raise
            -> BEGIN, statement_timeout from the budget, and the statement in one message
            -> wait (line.py): bounded by the budget, then cancelled in PostgreSQL
    commit, rollback -> the same, and not bounded by the budget: they are clean-up
    COPY -> copying.py

A class of connections or cursors that the application brings (psycopg2.extras has a dozen) gets ours below it. Where
that can't be, it waits the same way, without what is done here. Source: psycopg2's documentation, "Support for
coroutine libraries".
"""

import logging
import os
import re
import weakref
from functools import lru_cache
from typing import Any, NoReturn, Self

import psycopg2
from psycopg2 import _psycopg, extensions
from psycopg2.errors import QueryCanceled

from .. import clock, deadline
from ..errors import BudgetSpent
from ..record import CLEAN_UP, CURRENT, SHIELD, Record
from . import copying, parting
from .libpq import STATUS_OFFSET, libpq, status_of
from .line import POLL_OK, Line
from .naming import Once, request_name, request_route, shortened
from .parting import only_reads
from .resolving import with_addresses

# How long a connection attempt may take when its URL has no connect_timeout.
CONNECT_TIMEOUT_SECONDS = 30.0
# A ROLLBACK that is not answered by then: the connection is closed, which rolls back too.
ROLLBACK_SECONDS = 2.0
# How often an idle connection that has something to say is listened to before it is taken for a live one.
LAST_WORDS = 3
# The statement gets a line of its own: then the line that an error shows is as PostgreSQL would show it without this.
BEGIN = "BEGIN;\n"
# How often PostgreSQL looks, while a statement runs, whether this process still lives.
CHECKING_SETTING = "client_connection_check_interval"
CHECKING_BEGIN = f"BEGIN;SET LOCAL {CHECKING_SETTING}='2s';\n"
CHECKING_VERSION = 140_000
SHOWN_LINE = re.compile(r"LINE (\d+):")
STATUS_READY, STATUS_BEGIN = extensions.STATUS_READY, extensions.STATUS_BEGIN
IDLE, IN_ERROR = extensions.TRANSACTION_STATUS_IDLE, extensions.TRANSACTION_STATUS_INERROR

logger = logging.getLogger(__name__)

psycopg2_connect = psycopg2._connect  # type: ignore[attr-defined]  # private; one test holds it fast
REPLICATION = _psycopg.ReplicationConnection, _psycopg.ReplicationCursor  # they speak another protocol
told = Once()  # requests that went on in another one's transaction
# All that are open, for the day that this process forks.
connections: "weakref.WeakSet[GreenConnection]" = weakref.WeakSet()


class WaitCallback:
    """What psycopg2 calls for every step of connecting and of each query.

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
            connection.line.wait(
                connection, connection.poll, connection.silence_seconds or self.silence_seconds, is_connecting=False
            )
        else:
            line = Line()
            try:
                line.wait(connection, connection.poll, self.silence_seconds, is_connecting=False)
            finally:
                line.release()

    def _connect(self, connection: Any) -> None:
        # libpq's own connect_timeout has no effect while a callback is installed, so it is kept here.
        seconds = connect_timeout_seconds(connection.dsn)
        line = Line()
        try:
            line.wait(connection, connection.poll, seconds, is_connecting=True)
        finally:
            line.release()
        if isinstance(connection, GreenConnection):
            connection.line.heard_at = clock.now()


class GreenConnection(extensions.connection):
    """A connection as psycopg2.connect() gives it out: waits are bounded, and who uses it twice at once is told."""

    can_begin_in_one_message = STATUS_OFFSET is not None
    line: Line
    status_field: Any
    silence_seconds: float | None = None
    has_ended_in_rollback = False
    is_reading = False  # all that the transaction has run were plain SELECTs
    is_ours_alone = True
    can_check_client = True
    # The request that the transaction was begun for, if any.
    begun_for: "weakref.ref[Record] | None" = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Not in __init__: subclasses call psycopg2's own.
        self = super().__new__(cls, *args, **kwargs)
        self.line = Line()
        self.status_field = status_of(self) if self.can_begin_in_one_message else None
        connections.add(self)
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if type(self) is GreenConnection:
            self.cursor_factory = GreenCursor  # other classes look whether there is one, and bring theirs

    def hear(self) -> None:
        """See the answer to a ROLLBACK that nobody has waited for. Without one the connection is closed."""
        line = self.line
        try:
            if not line.hear():  # which mostly has come by now
                line.wait(self, self._poll_unheard, ROLLBACK_SECONDS, is_connecting=False)
        except BaseException as exc:
            self.close()  # nobody else is going to see that answer
            if not isinstance(exc, (psycopg2.OperationalError, BudgetSpent)):
                raise
            logger.info("a connection ended before its ROLLBACK: %s", str(exc).strip())

    def _poll_unheard(self) -> int:
        unsent = libpq.PQflush(self.line.unheard)
        if unsent < 0:
            raise psycopg2.OperationalError("the server closed the connection")
        if self.line.hear():
            return int(POLL_OK)
        return extensions.POLL_WRITE if unsent else extensions.POLL_READ

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs and self.cursor_factory is GreenCursor and not self.closed:
            return GreenCursor(self)  # as psycopg2 makes it, which has a dozen arguments to look at first
        own: Any = self.cursor_factory
        asked = args[1] if len(args) > 1 else kwargs.pop("cursor_factory", None)
        factory = over_ours(asked or own or extensions.cursor)
        if args or kwargs or factory is not GreenCursor:
            self.is_ours_alone = False  # what such a cursor runs is not seen here
        name = args[0] if args else kwargs.pop("name", None)
        return super().cursor(name, factory, *args[2:], **kwargs)

    def commit(self) -> None:
        self.refuse_second_user("COMMIT")
        self._clean_up("COMMIT", super().commit)

    def rollback(self) -> None:
        if self.has_ended_in_rollback:
            return
        if self.line.unheard:
            return  # one is on its way, and nothing was run since: the pool makes sure
        if self.line.greenlet is not None or self.line.is_copying:
            self.refuse_second_user("ROLLBACK")
        if self.is_reading and parting.is_closing() and parting.roll_back_unheard(self):
            return
        is_open = not self.closed
        self.silence_seconds = ROLLBACK_SECONDS
        try:
            self._clean_up("ROLLBACK", super().rollback)
        except psycopg2.OperationalError as exc:
            if not (is_open and self.closed):
                raise
            # The connection has ended, and the transaction with it: what was asked for has happened. Whoever had its
            # answer already need not fail for this; who uses the connection again is told.
            self.has_ended_in_rollback = True
            logger.info("a connection ended before its ROLLBACK: %s", str(exc).strip())
        finally:
            self.silence_seconds = None

    def _clean_up(self, sql: str, call: Any) -> None:
        """What may go on when the request's time is over. As deadline.shield(), which costs more."""
        self.line.sql = sql
        if CURRENT.get() is None or SHIELD.get() >= CLEAN_UP:
            call()
            return
        token = SHIELD.set(CLEAN_UP)
        try:
            call()
        finally:
            SHIELD.reset(token)

    def cancel(self) -> None:
        """Have what runs on this connection ended. psycopg2's own blocks the whole process meanwhile."""
        if self.closed:
            raise psycopg2.InterfaceError("connection already closed")
        copying.cancel(self)

    def lobject(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise psycopg2.NotSupportedError(
            "large objects can't be used through psycopg2's lobject() in a green worker. Call the server's functions "
            "instead (SELECT lo_get(oid), lo_put(oid, offset, bytes), lo_from_bytea(0, bytes), lo_unlink(oid)), store "
            "bytea, or do it in a job outside of the worker"
        )

    def begins_plainly(self) -> bool:
        """Whether the next statement begins a transaction, with nothing but a plain BEGIN."""
        return (
            self.status == STATUS_READY
            and self.status_field is not None
            and not self.autocommit
            and self.isolation_level is None
            and self.readonly is None
            and self.deferrable is None
        )

    def close(self) -> None:
        self.line.unheard = 0
        self.line.release()
        super().close()

    def __del__(self) -> None:
        self.line.release()

    def refuse_second_user(self, sql: str) -> None:
        """Raise ProgrammingError when another greenlet waits for an answer on this connection, naming both."""
        line = self.line
        if line.greenlet is not None or line.is_copying:
            raise psycopg2.ProgrammingError(
                f"one database connection is used by two greenlets at once: {request_name(line.record)} waits for "
                f"{shortened(line.sql)!r} on it, and {request_name(CURRENT.get())} asks for {shortened(sql)!r}. Give "
                "each request, thread and greenlet a session or connection of its own"
            )

    def tell_of_two_requests(self, record: Record, sql: str) -> None:
        """Warn of a request that goes on in another one's transaction: a Session that both have, say."""
        first = self.begun_for() if self.begun_for is not None else None
        if told.is_new(request_route(record)):
            logger.warning(
                "%s asks for %r in a transaction that was begun for %s: each sees, commits and rolls back what the "
                "other does. Give each request a session or connection of its own (db.session, or a scoped_session)",
                request_name(record),
                shortened(sql),
                "a request that is over" if first is None else request_name(first),
            )

    def begin_text(self) -> str:
        """What begins a transaction. PostgreSQL is told to look whether we are still there.

        That is for the day that this worker is killed: nobody would cancel its queries then. While it lives it cancels
        them itself when their request ends. A statement_timeout of the budget's length would do the same, but a budget
        can change, and a statement that runs can't be told.
        """
        if self.server_version < CHECKING_VERSION or not self.can_check_client:
            return BEGIN
        return CHECKING_BEGIN

    def has_ended(self) -> bool:
        """Whether the server has closed its end, as far as the socket tells. Costs no round trip."""
        for _ in range(LAST_WORDS):
            if self.closed:
                return True
            if not self.line.has_stirred(self):
                return False
            try:
                self.poll()  # takes notices and notifications, too; libpq sees the end only after the last words
            except psycopg2.OperationalError:
                return True
            self.line.heard_at = 0.0  # whatever it said, it may have been its last word: ask it
        return False


class GreenCursor(extensions.cursor):
    """A cursor as connection.cursor() gives it out."""

    copied_rows: int | None = None
    begun_with = ""

    def execute(self, query: Any, vars: Any = None) -> None:
        connection: Any = self.connection
        line = connection.line
        if line.greenlet is not None or line.is_copying:
            connection.refuse_second_user(query)
        if line.unheard:
            connection.hear()
        line.sql = sql = query if isinstance(query, str) else str(query)
        if self.begun_with or self.copied_rows is not None:
            self.begun_with, self.copied_rows = "", None
        if deadline.is_refused():
            raise QueryCanceled("the request's time is over; the statement was not sent")
        record = CURRENT.get()
        if connection.status == STATUS_READY:
            connection.begun_for = None if record is None else weakref.ref(record)
        elif record is not None and connection.begun_for is not None and connection.begun_for() is not record:
            connection.tell_of_two_requests(record, sql)
        if connection.begins_plainly() and sql is query and sql and self.name is None:
            self._begin_and_execute(connection, query, vars)
        else:
            connection.is_reading = connection.is_reading and only_reads(sql)
            super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        self._is_more(query)
        super().executemany(query, vars_list)

    def callproc(self, procname: Any, *args: Any) -> Any:
        self._is_more(procname)
        return super().callproc(procname, *args)

    def _is_more(self, sql: Any) -> None:
        """What psycopg2 runs without coming by execute()."""
        connection: Any = self.connection
        connection.refuse_second_user(sql)
        if connection.line.unheard:
            connection.hear()
        connection.line.sql = str(sql)
        connection.is_reading = False
        if deadline.is_refused():
            raise QueryCanceled("the request's time is over; the statement was not sent")

    def _begin_and_execute(self, connection: Any, query: str, vars: Any) -> None:
        """BEGIN and the transaction's first statement in one message: a round trip less for each transaction.

        A message that PostgreSQL can't parse begins nothing. psycopg2 expects a transaction to be open after any
        error, so then it is sent again as psycopg2 would have sent it, which fails with the same error in the same
        state.
        """
        begin = BEGIN if CURRENT.get() is None else connection.begin_text()
        status = connection.status_field
        status.value = STATUS_BEGIN
        self.begun_with = begin
        connection.is_reading = connection.is_ours_alone and only_reads(query)
        try:
            super().execute(begin + query, vars)
        except BaseException as exc:
            if connection.closed:
                raise
            if connection.get_transaction_status() == IDLE:
                status.value = STATUS_READY
                self.begun_with = ""
                if not isinstance(exc, psycopg2.Error) or exc.pgcode is None:
                    raise  # it was never sent: wrong parameters
            elif begin is CHECKING_BEGIN and CHECKING_SETTING in str(exc):
                # PostgreSQL on a system that can't look, or another server that speaks its protocol.
                GreenConnection.can_check_client = False
                extensions.connection.rollback(connection)
                self.begun_with = ""
            else:
                if isinstance(exc, psycopg2.Error):
                    _count_lines_without_ours(exc)
                raise
        if not self.begun_with:
            super().execute(query, vars)

    @property
    def query(self) -> Any:
        """What was sent, without the BEGIN before it."""
        sent = super().query
        return sent[len(self.begun_with) :] if sent else sent

    @property
    def rowcount(self) -> int:
        return super().rowcount if self.copied_rows is None else self.copied_rows

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        self._is_more(sql)
        copying.copy_expert(self, sql, file, size)

    def copy_from(
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        size: int = 8192,
        columns: Any = None,
    ) -> None:
        self.copy_expert(copying.statement(self, table, columns, "FROM stdin", sep, null), file, size)

    def copy_to(self, file: Any, table: str, sep: str = "\t", null: str = "\\N", columns: Any = None) -> None:
        self.copy_expert(copying.statement(self, table, columns, "TO stdout", sep, null), file, 8192)


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


def _count_lines_without_ours(error: psycopg2.Error) -> None:
    """Let an error count the lines of SQL from the statement's own first one."""
    state = {"pgerror": error.pgerror and _shown_line_less(error.pgerror), "pgcode": error.pgcode}
    error.args = (_shown_line_less(str(error)),)
    error.__setstate__(state)  # type: ignore[no-untyped-call]


def _shown_line_less(text: str) -> str:
    lines = text.split("\n")
    for number, line in enumerate(lines[:-1]):
        if found := SHOWN_LINE.match(line):
            less = f"LINE {int(found[1]) - 1}:"
            lines[number] = less + line[found.end() :]
            # The caret below stands where it stood, or one further left where the number has become shorter.
            lines[number + 1] = lines[number + 1][found.end() - len(less) :]
            break
    return "\n".join(lines)


def connect(dsn: str, connection_factory: Any = None, **is_async: Any) -> Any:
    """In place of psycopg2's own: host names are looked up here, where others can run meanwhile."""
    if any(is_async.values()):
        return psycopg2_connect(dsn, connection_factory=connection_factory, **is_async)
    if deadline.is_refused():
        raise QueryCanceled("the request's time is over; no connection was opened")
    factory = over_ours(connection_factory or extensions.connection)
    try:
        return psycopg2_connect(with_addresses(dsn, connect_timeout_seconds(dsn)), connection_factory=factory)
    except psycopg2.OperationalError as exc:
        if "too many clients" in str(exc) or "remaining connection slots are reserved" in str(exc):
            exc.args = (f"{str(exc).rstrip()}\n{NO_SLOTS}",)
        raise


NO_SLOTS = (
    "PostgreSQL has no free connection slot: lower the pools (pool_size + max_overflow) of all processes that use it, "
    "run fewer workers, or raise max_connections"
)


def install(silence_seconds: float, *, one_message: bool = True) -> None:
    """Make every psycopg2 connection of this process wait in the event loop.

    `one_message`: a transaction begins in one message with its first statement.
    """
    GreenConnection.can_begin_in_one_message = one_message and STATUS_OFFSET is not None
    extensions.set_wait_callback(WaitCallback(silence_seconds))
    if one_message:
        parting.install()
    # Not psycopg2.connect: whoever holds that already gets this, too.
    psycopg2._connect = connect  # type: ignore[attr-defined]
    if hasattr(os, "register_at_fork") and not _is_fork_watched:
        os.register_at_fork(after_in_child=leave_to_parent)
        _is_fork_watched.append(True)


_is_fork_watched: list[bool] = []


def leave_to_parent() -> None:
    """In a forked child: let go of the parent's connections, so that none is used by two processes.

    Nothing is said to the server; using one here is an error. Their sockets' numbers stay taken, by nothing: libpq will
    close them, and must not close somebody else's.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for connection in list(connections):
        connection.line.unheard = 0
        connection.line.release()
        if not connection.closed:
            os.dup2(nothing, connection.fileno(), inheritable=False)
    os.close(nothing)
    connections.clear()


def is_installed() -> bool:
    return isinstance(extensions.get_wait_callback(), WaitCallback)


def connect_timeout_seconds(dsn: str) -> float:
    """The connect_timeout in `dsn`. As in libpq, 0 or nothing there means no limit; we keep ours then."""
    return float(extensions.parse_dsn(dsn).get("connect_timeout", 0)) or CONNECT_TIMEOUT_SECONDS
