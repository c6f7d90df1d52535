"""COPY on a connection of psycopg2's, waiting in the event loop; psycopg2 refuses it as soon as there is a callback.

    psycopg2 sends the statement -> the wait callback sees the answer: "send the data", "here it comes", or an error
    -> the data, by libpq (converse) -> the callback sees the last answer -> psycopg2 makes of it what it always does

So statement, transaction, row count and errors are psycopg2's own. Only the data between the first answer and the last
one is moved here, where each step that would wait returns instead, and the wait is query_wait.py's.
"""

import ctypes
import io
from typing import Any

import gevent.event
import psycopg2
from greenlet import getcurrent
from psycopg2 import extensions, sql

from ..in_flight import current
from .libpq import CANCEL_SECONDS, COPY_IN, COPY_OUT, Cancel, libpq
from .query_wait import POLL_OK, POLL_READ, POLL_WRITE

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


def begin(connection: Any, file: Any, size: int) -> "Copying":
    """Have the next statement's data read from `file`, or written to it. Raises where that can't be."""
    if libpq is None:
        raise psycopg2.NotSupportedError(
            "COPY can't be used in a green worker with this build of psycopg2: insert rows with "
            "psycopg2.extras.execute_values, or do it in a job outside of the worker"
        )
    if not hasattr(file, "read") and not hasattr(file, "write"):
        raise TypeError(
            "file must be a readable file-like object for COPY FROM; a writable file-like object for COPY TO."
        )
    if connection.closed:
        raise psycopg2.InterfaceError("connection already closed")
    conversation = Copying(connection, file, size)
    connection.greenroom_line.copying = conversation
    return conversation


def end(connection: Any) -> None:
    """Get a connection out of a COPY that was begun with execute(), which psycopg2 says is an error, and leaves so."""
    if libpq is not None and Copying(connection, Nothing(), 1).converse():
        connection.greenroom_line.wait(connection, connection.poll, SILENCE_SECONDS, is_connecting=False)


class Nothing:
    """A file with nothing in it, and for nothing."""

    def read(self, _: int) -> bytes:
        return b""

    def write(self, _: bytes) -> None:
        pass


class Copying:
    """Moves the data of one COPY. `problem`: the error of writing the file; the data was read all the same."""

    def __init__(self, connection: Any, file: Any, size: int) -> None:
        self.connection = connection
        self.line = connection.greenroom_line
        self.file = file
        self.size = size
        self.pointer = connection.pgconn_ptr
        self.encoding = extensions.encodings[connection.encoding]
        self.buffer = ctypes.c_void_p()
        self.length = 0
        self.problem: Exception | None = None

    def converse(self) -> bool:
        """Move the data, if psycopg2 has just read that it is to be moved; whether it was.

        Raises what ends a wait; the conversation can't be gone on with then, and psycopg2 closes the connection.
        """
        answer = libpq.PQgetResult(self.pointer)  # as often as it is asked, while data is to be moved; else none
        if not answer:
            return False
        status = libpq.PQresultStatus(answer)
        libpq.PQclear(answer)
        if status not in (COPY_IN, COPY_OUT):
            return False
        line = self.line
        line.record, line.copied_by = current(), getcurrent()
        try:
            if status == COPY_IN:
                self._send()
            else:
                self._receive()
        finally:
            line.record = line.copied_by = None
            line.next_turn()
        return True

    def _send(self) -> None:
        unsent = 0
        while (data := self._read()) and isinstance(data, bytes):
            unsent += len(data)
            while (taken := libpq.PQputCopyData(self.pointer, data, len(data))) == 0:
                self._wait(self._flush)
            if taken < 0:
                return  # the server has complained: psycopg2 reads that
            if unsent >= UNSENT_BYTES:
                self._wait(self._flush)
                unsent = 0
        reason = None if not data else f"error in .read() call: {type(data).__name__} {data}".encode()
        while libpq.PQputCopyEnd(self.pointer, reason) == 0:
            self._wait(self._flush)
        self._wait(self._flush)

    def _read(self) -> bytes | Exception:
        """Read a piece of the file in the connection's encoding; empty at the end. An error is for the server."""
        try:
            data = self.file.read(self.size)
            if isinstance(data, str):
                data = data.encode(self.encoding)
            if not isinstance(data, bytes):
                raise TypeError(f"got {type(data).__name__} instead of bytes")
        except Exception as exc:
            return exc
        return data

    def _receive(self) -> None:
        is_text = isinstance(self.file, io.TextIOBase)
        while True:
            self._wait(self._has_row)
            if self.length < 0:
                return
            data: Any = ctypes.string_at(self.buffer.value or 0, self.length)
            libpq.PQfreemem(self.buffer)
            if self.problem is None:
                try:
                    self.file.write(data.decode(self.encoding) if is_text else data)
                except Exception as exc:
                    self.problem = exc  # what still comes must be taken, or the next statement would meet it

    def _wait(self, poll: Any) -> None:
        self.line.wait(self.connection, poll, SILENCE_SECONDS, is_connecting=False)

    def _flush(self) -> int:
        sent = libpq.PQflush(self.pointer)
        if sent < 0:
            raise psycopg2.OperationalError(self._problem())
        if sent == 0:
            return POLL_OK
        self._consume()  # a server that has something to say may take nothing until we have heard it
        return POLL_WRITE

    def _has_row(self) -> int:
        """Leaves in `length` and `buffer` what PQgetCopyData found: bytes, or less than 0 when that was all."""
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
