"""COPY on a connection of psycopg2's, waiting in the event loop; psycopg2 refuses it as soon as there is a callback.

The same conversation with libpq as psycopg2 has, only that each step that would wait returns instead, and the wait is
line.py's: bounded by the budget, and cancelled.
"""

import ctypes
import io
from typing import Any

import gevent.event
import psycopg2
from psycopg2 import errors, extensions, sql

from .. import deadline
from ..record import current
from .libpq import CANCEL_SECONDS, COMMAND_OK, COPY_IN, COPY_OUT, SQLSTATE, TUPLES_OK, Cancel, libpq
from .line import POLL_OK, POLL_READ, POLL_WRITE

# How long the server may say nothing in the middle of it.
SILENCE_SECONDS = 120.0
# As many bytes as may be waiting in libpq before we let the server take them.
UNSENT_BYTES = 65_536


def statement(cursor: Any, table: str, columns: Any, direction: str, separator: str, null: str) -> str:
    """The COPY statement that psycopg2's copy_from and copy_to would send."""
    parts = sql.SQL("COPY {table}{columns} {direction} WITH DELIMITER AS {separator} NULL AS {null}").format(
        table=sql.Identifier(table),
        columns=sql.SQL(" ({})").format(sql.SQL(",").join(map(sql.Identifier, columns))) if columns else sql.SQL(""),
        direction=sql.SQL(direction),
        separator=sql.Literal(separator),
        null=sql.Literal(null),
    )
    return parts.as_string(cursor)


def copy_expert(cursor: Any, query: Any, file: Any, size: int) -> None:
    """psycopg2's `cursor.copy_expert`: COPY ... FROM STDIN reads `file`, COPY ... TO STDOUT writes it."""
    connection = cursor.connection
    if libpq is None:
        raise psycopg2.NotSupportedError(
            "COPY can't be used in a green worker with this build of psycopg2: insert rows with "
            "psycopg2.extras.execute_values, or do it in a job outside of the worker"
        )
    if deadline.is_refused():
        raise errors.QueryCanceled("the request's time is over; the statement was not sent")
    text = query.as_string(cursor) if isinstance(query, sql.Composable) else query
    if isinstance(text, bytes):
        text = text.decode()
    if not connection.autocommit and connection.status == extensions.STATUS_READY:
        cursor.execute("SELECT 1")  # as little as it takes to have psycopg2 begin a transaction
    else:
        connection.refuse_second_user(text)
    Copying(connection).run(cursor, text, file, size)


class Copying:
    """One COPY."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.pointer = connection.pgconn_ptr
        self.encoding = extensions.encodings[connection.encoding]
        self.buffer = ctypes.c_void_p()
        self.length = 0
        self.is_over = False  # all that the server has to say of it has been heard

    def run(self, cursor: Any, query: str, file: Any, size: int) -> None:
        line = self.connection.line
        line.sql = query
        line.record = current()
        line.is_copying = True
        try:
            if not libpq.PQsendQuery(self.pointer, query.encode(self.encoding)):
                raise psycopg2.OperationalError(self._problem())
            self._wait(self._flush)
            result, failure = self._result()
            if result == COPY_IN:
                failure = self._send(file, size)
            elif result == COPY_OUT:
                failure = self._receive(file)
            elif failure is None:
                failure = psycopg2.ProgrammingError("can't copy: the statement is no COPY FROM STDIN or TO STDOUT")
            cursor.copied_rows = self._drain(failure)
        except BaseException:
            if not self.is_over:
                self.connection.close()  # in the middle of the conversation: nobody could go on with it
            raise
        finally:
            line.is_copying = False
            line.record = None

    def _send(self, file: Any, size: int) -> Exception | None:
        """What went wrong with reading `file`; the server's own complaint comes as the result."""
        unsent = 0
        problem: Exception | None = None
        try:
            while data := file.read(size):
                if isinstance(data, str):
                    data = data.encode(self.encoding)
                unsent += len(data)
                while (taken := libpq.PQputCopyData(self.pointer, data, len(data))) == 0:
                    self._wait(self._flush)
                if taken < 0:
                    return None
                if unsent >= UNSENT_BYTES:
                    self._wait(self._flush)
                    unsent = 0
        except psycopg2.Error:
            raise
        except Exception as exc:
            problem = exc
        reason = None if problem is None else f"error in .read() call: {type(problem).__name__} {problem}".encode()
        while libpq.PQputCopyEnd(self.pointer, reason) == 0:
            self._wait(self._flush)
        self._wait(self._flush)
        return problem

    def _receive(self, file: Any) -> Exception | None:
        """What went wrong with writing to `file`; the server's own complaint comes as the result."""
        is_text = isinstance(file, io.TextIOBase)
        problem: Exception | None = None
        while True:
            self._wait(self._has_row)
            if self.length < 0:
                return problem
            data: Any = ctypes.string_at(self.buffer.value or 0, self.length)
            libpq.PQfreemem(self.buffer)
            if problem is None:
                try:
                    file.write(data.decode(self.encoding) if is_text else data)
                except Exception as exc:
                    problem = exc  # what still comes must be taken, or the next statement would meet it

    def _drain(self, failure: Exception | None) -> int:
        """Take all results; returns the rows copied. Raises the server's complaint, else `failure`."""
        rows = 0
        complaint: Exception | None = None
        while (answer := self._next_result()) is not None:
            try:
                count, problem = self._look_at(answer)
                rows, complaint = count or rows, complaint or problem
            finally:
                libpq.PQclear(answer)
        self.is_over = True
        if complaint is not None:
            raise complaint from failure
        if failure is not None:
            raise failure
        return rows

    def _result(self) -> tuple[int, Exception | None]:
        answer = self._next_result()
        if answer is None:
            raise psycopg2.OperationalError(self._problem())
        try:
            return libpq.PQresultStatus(answer), self._look_at(answer)[1]
        finally:
            libpq.PQclear(answer)

    def _look_at(self, answer: int) -> tuple[int, Exception | None]:
        status = libpq.PQresultStatus(answer)
        if status in (COMMAND_OK, TUPLES_OK, COPY_IN, COPY_OUT):
            rows = libpq.PQcmdTuples(answer)
            return int(rows or 0), None
        message = libpq.PQresultErrorMessage(answer).decode(self.encoding, "replace")
        code = (libpq.PQresultErrorField(answer, SQLSTATE) or b"").decode()
        try:
            error = errors.lookup(code)(message.partition(":  ")[2] or message)
        except KeyError:
            error = psycopg2.DatabaseError(message)
        state: dict[str, Any] = {"pgerror": message, "pgcode": code or None}
        error.__setstate__(state)  # type: ignore[no-untyped-call]
        return 0, error

    def _next_result(self) -> int | None:
        self._wait(self._has_result)
        answer: int | None = libpq.PQgetResult(self.pointer)
        return answer

    def _wait(self, poll: Any) -> None:
        self.connection.line.wait(self.connection, poll, SILENCE_SECONDS, is_connecting=False)

    def _flush(self) -> int:
        sent = libpq.PQflush(self.pointer)
        if sent < 0:
            raise psycopg2.OperationalError(self._problem())
        if sent == 0:
            return POLL_OK
        self._consume()  # a server that has something to say may take nothing until we have heard it
        return POLL_WRITE

    def _has_result(self) -> int:
        if not libpq.PQisBusy(self.pointer):
            return POLL_OK
        self._consume()
        return POLL_READ if libpq.PQisBusy(self.pointer) else POLL_OK

    def _has_row(self) -> int:
        """Leaves in `length` and `buffer` what PQgetCopyData found: bytes, or -1 when that was all."""
        if not self._take_row():
            self._consume()
            if not self._take_row():  # asked after the last look at the socket, or it could have come just then
                return POLL_READ
        return POLL_OK

    def _take_row(self) -> bool:
        self.length = libpq.PQgetCopyData(self.pointer, ctypes.byref(self.buffer), 1)
        return bool(self.length)

    def _consume(self) -> None:
        if not libpq.PQconsumeInput(self.pointer):
            raise psycopg2.OperationalError(self._problem())

    def _problem(self) -> str:
        return str(libpq.PQerrorMessage(self.pointer).decode(self.encoding, "replace"))


def cancel(connection: Any) -> None:
    """Ask PostgreSQL to end what this connection runs; returns when it was told."""
    told = gevent.event.Event()
    Cancel(connection, told.set)
    told.wait(CANCEL_SECONDS)
