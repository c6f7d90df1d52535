"""How one request is answered: a connection taken or opened, the request sent, the head of the answer read.

Raises what urllib3 raises, with the same words. A kept connection that turns out to be closed by the other side is
replaced by a new one, once, where that is safe: nothing was received, and the method is a safe one or nothing of the
request was sent.
"""

import _socket
import errno
import logging
import socket
import ssl
import warnings
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import Any

import urllib3.util.connection
from urllib3.connection import HTTPConnection, _match_hostname
from urllib3.exceptions import (
    ConnectTimeoutError,
    InsecureRequestWarning,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util.ssl_match_hostname import CertificateError

from ... import deadline
from ...errors import BudgetSpent
from .. import peers
from . import logins, tls
from .answer import Answer, Exchange, Files, StreamedAnswer, check_parsing, client_response, closes
from .connection import Connection, spent
from .head import INTERIM, LARGEST_PLAIN_BYTES, Head, Outgoing, end_of_head, plain_head
from .pool import NoSlot, Origin
from .reader import Reader

urllib3_logger = logging.getLogger("urllib3.connectionpool")
# RFC 9110, section 9.2.1: the request wants nothing done, so it may be sent again.
SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
# The other side stopped reading; it may have said why, so the answer is read all the same. As in urllib3.
STOPPED_READING = (errno.EPIPE, errno.ECONNRESET, errno.EPROTOTYPE)
HTTP = b"HTTP/"
# The other side closed its end, and said so to TLS or not.
TLS_ENDED = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
REQUEST_TIMEOUT = 408
WITHOUT_RESPONSE = "Remote end closed connection without response"  # http.client's words
# So many "100 Continue" and the like are passed over.
MOST_INTERIM = 20


class Stale(Exception):
    """A kept connection was closed by the other side before it said anything; the request may be sent again."""


class UpstreamCall:
    """One request to `origin`. `connect_seconds` and `read_seconds` are as in requests, None is for ever."""

    def __init__(
        self,
        origin: Origin,
        method: str,
        path: str,
        outgoing: Outgoing,
        connect_seconds: float | None,
        read_seconds: float | None,
        adapter: Any,
    ) -> None:
        self.origin = origin
        self.method = method
        self.path = path
        self.outgoing = outgoing
        self.connect_seconds = connect_seconds
        self.read_seconds = read_seconds
        self.adapter = adapter

    def run(self) -> Answer | StreamedAnswer:
        """The answer, its body still to be read. Raises urllib3's errors.

        Runs on: any greenlet of the main thread; switches.
        """
        if deadline.is_refused():
            reason = spent()
            raise self.too_late(reason) from reason
        peers.asked(self.origin.where)
        answer = self._answer()
        peers.answered(self.origin.where, answer.status)
        if urllib3_logger.isEnabledFor(logging.DEBUG):
            origin = self.origin
            urllib3_logger.debug(  # the line that people look for
                '%s://%s:%s "%s %s %s" %s %s', origin.scheme, origin.host, origin.port, self.method, self.path,
                answer.version_string, answer.status, answer.length_remaining,
            )  # fmt: skip
        return answer

    def _answer(self) -> Answer | StreamedAnswer:
        try:
            connection = self.origin.take(self.connect_seconds, self.adapter, is_safe=self.method in SAFE)
            if connection is not None:
                try:
                    return self._ask(connection, is_kept=True)
                except Stale:
                    self.origin.take_slot(self.connect_seconds, self.adapter)
        except NoSlot as exc:
            raise self._given_up(ConnectTimeoutError(self.origin.peer, str(exc))) from exc
        return self._ask(self._open(), is_kept=False)

    # Opening

    def _open(self) -> Connection:
        """A new connection for the slot that we have."""
        try:
            if self.origin.scheme == "https":
                tls.authorities_for(self.origin.verify)  # a file that is missing is missed first, as in requests
            sock = self._connect()
        except BaseException:
            self.origin.lose_slot()
            raise
        if self.origin.scheme == "http":
            return Connection(plain(sock), self.origin.where, self.origin)
        try:
            context = tls.context_for(self.origin.verify)
            sock.settimeout(0)
            wrapped = tls.wrap(sock, context, self.origin.host)
        except BaseException as exc:
            sock.close()
            self.origin.lose_slot()
            if isinstance(exc, ssl.SSLError):
                raise self._given_up(SSLError(exc)) from exc
            if isinstance(exc, SSLError):
                raise self._given_up(exc) from exc
            raise
        connection = Connection(wrapped, self.origin.where, self.origin, is_tls=True)
        connection.is_verified = context.verify_mode == ssl.CERT_REQUIRED
        connection.timeout_seconds = self.connect_seconds
        is_done = False
        try:
            connection.handshake()
            if context.verify_mode != ssl.CERT_NONE and not context.check_hostname:
                check_name(wrapped, self.origin.host)
            is_done = True
        except TimeoutError as exc:
            raise self.too_late(exc, self.connect_seconds) from exc
        except (ssl.SSLError, CertificateError) as exc:
            raise self._given_up(SSLError(exc)) from exc
        except OSError as exc:
            raise ProtocolError("Connection aborted.", exc) from exc
        finally:
            if not is_done:
                connection.close()
        return connection

    def _connect(self) -> Any:
        """Return a connected gevent socket."""
        seconds = self.connect_seconds
        host, port = self.origin.host, self.origin.port
        try:
            if seconds is not None and seconds <= 0.0:
                raise TimeoutError("timed out")
            # Looked up each time: waits/happy_eyeballs.py replaces it, and people do who want another address family.
            connect = urllib3.util.connection.create_connection
            return connect((host, port), seconds, socket_options=HTTPConnection.default_socket_options)
        except socket.gaierror as exc:
            reason: Any = NameResolutionError(host, self.origin.peer, exc)  # type: ignore[arg-type]
            raise self._given_up(reason) from exc
        except TimeoutError as exc:
            words = f"Connection to {host} timed out. (connect timeout={self.connect_seconds})"
            raise self._given_up(ConnectTimeoutError(self.origin.peer, words)) from exc
        except OSError as exc:
            reason = NewConnectionError(self.origin.peer, f"Failed to establish a new connection: {exc}")  # type: ignore[arg-type]
            raise self._given_up(reason) from exc

    # Asking

    def _ask(self, connection: Connection, *, is_kept: bool) -> Answer | StreamedAnswer:
        """Send the request and read the head of the answer. The connection is closed if anything goes wrong."""
        try:
            connection.use(self.adapter, self.origin.pools.now())
            if connection.is_tls and not connection.is_verified:
                self._warn_unverified()
            self._send(connection)
            connection.timeout_seconds = self.read_seconds
            return self._receive(connection, is_kept and (self.method in SAFE or not connection.has_sent))
        except BaseException:
            connection.close()
            raise

    def _send(self, connection: Connection) -> None:
        connection.timeout_seconds = self.connect_seconds  # as urllib3 has it
        connection.has_sent = False
        try:
            connection.send(self.outgoing.head)
            if self.outgoing.chunks:
                connection.send_all(self.outgoing.chunks)
        except BudgetSpent as exc:
            raise self.too_late(exc) from exc
        except OSError as exc:
            if not isinstance(exc, TLS_ENDED):
                if isinstance(exc, ssl.SSLError):
                    raise self._given_up(SSLError(exc)) from exc
                if exc.errno not in STOPPED_READING:
                    raise ProtocolError("Connection aborted.", exc) from exc
            connection.owner = Spent(connection.owner)
        if self.outgoing.closes:
            connection.owner = Spent(connection.owner)

    def _receive(self, connection: Connection, may_repeat: bool) -> Answer | StreamedAnswer:
        received = b""
        try:
            for _ in range(MOST_INTERIM):
                end = end_of_head(received) if received else 0
                while not end:
                    more = connection.receive()
                    if not more:
                        if not received:
                            raise RemoteDisconnected(WITHOUT_RESPONSE)
                        break  # http.client knows what to make of it
                    searched = len(received)
                    received += more
                    end = end_of_head(received, searched)
                    if not end and not is_promising(received):
                        break
                if not end or INTERIM(received) is None:
                    break
                received = received[end:]  # "100 Continue" and the like: the answer is still to come
        except TimeoutError as exc:
            raise self.too_late(exc) from exc
        except (OSError, HTTPException) as exc:
            is_tls_error = isinstance(exc, ssl.SSLError) and not isinstance(exc, TLS_ENDED)
            if may_repeat and not received and self.outgoing.is_repeatable and not is_tls_error:
                raise Stale from exc
            if isinstance(exc, ssl.SSLError):
                raise self._given_up(SSLError(exc)) from exc
            raise ProtocolError("Connection aborted.", exc) from exc
        head = plain_head(received[:end]) if end else None
        framing = body_of(head, self.method) if head is not None else None
        if head is None or framing is None:
            connection.received = received
            return self._receive_unusual(connection)
        fields = head.fields
        if may_repeat and head.status == REQUEST_TIMEOUT and closes(head):
            raise Stale  # it was idle for too long; the word and our request have crossed
        if "keep-alive" in fields:
            connection.obey(fields["keep-alive"][1])
        if logins.in_answer(head.status, fields, lambda name: fields[name][1:]):
            self._keep_to_session(connection)
        answer = self._whole(connection, head, received, end, framing)
        if answer is not None:
            return answer
        connection.received = received
        connection.position = end
        reader = Reader(connection)
        response = client_response(head, self.method, reader, chunked=framing < 0)
        return self._streamed(response, Exchange(connection, reader))

    def _whole(self, connection: Connection, head: Head, received: bytes, end: int, length: int) -> Answer | None:
        """The answer if its body has arrived in full, and nothing behind it; the connection is free then."""
        if length >= 0:
            if len(received) - end != length:
                return None
            pieces: list[bytes] | None = [received[end:]] if length else []
        else:
            pieces = chunks_of(received, end)
        if pieces is None:
            return None
        if closes(head):
            connection.close()
        else:
            connection.owner.give_back(connection)
        return Answer(head, self.origin, self.method, self.path, self.adapter, pieces)

    def _receive_unusual(self, connection: Connection) -> StreamedAnswer:
        """http.client reads the head, from what has been received and on from there."""
        reader = Reader(connection)
        response = HTTPResponse(Files(reader), method=self.method)  # type: ignore[arg-type]
        try:
            response.begin()
        except TimeoutError as exc:
            raise self.too_late(exc) from exc
        except ssl.SSLError as exc:
            raise self._given_up(SSLError(exc)) from exc
        except (OSError, HTTPException) as exc:
            raise ProtocolError("Connection aborted.", exc) from exc
        check_parsing(response, self.origin, self.path)
        fields = response.msg
        connection.obey(fields.get("keep-alive", ""))
        if logins.in_answer(response.status, map(str.lower, fields), lambda name: fields.get_all(name, ())):
            self._keep_to_session(connection)
        return self._streamed(response, Exchange(connection, reader))

    def _streamed(self, response: HTTPResponse, exchange: Exchange) -> StreamedAnswer:
        return StreamedAnswer(response, exchange, self.origin, self.method, self.path, self.adapter.max_retries)

    def _keep_to_session(self, connection: Connection) -> None:
        """The other side knows, or will know, whose this connection is: the next steps come on it, and nobody else."""
        own = self.origin.pools.own_origin(self.origin.key, self.adapter)
        if connection.owner is self.origin:  # else it is closed when it comes back
            own.adopt(connection)

    # Errors

    def _given_up(self, reason: Exception) -> MaxRetryError:
        return MaxRetryError(self.origin, self.path, reason)  # type: ignore[arg-type]

    def too_late(self, exc: TimeoutError, seconds: float | None = None) -> ReadTimeoutError:
        words = str(exc) if isinstance(exc, BudgetSpent) else f"read timeout={seconds or self.read_seconds}"
        return ReadTimeoutError(self.origin, self.path, f"Read timed out. ({words})")  # type: ignore[arg-type]

    def _warn_unverified(self) -> None:
        warnings.warn(
            f"Unverified HTTPS request is being made to host '{self.origin.host}'. Adding certificate verification is "
            "strongly advised. See: https://urllib3.readthedocs.io/en/latest/advanced-usage.html#tls-warnings",
            InsecureRequestWarning,
            stacklevel=2,
        )


class Spent:
    """The owner of a connection that must not be used again: it is closed when it is given back."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def give_back(self, connection: Connection) -> None:
        connection.close()

    def lose(self, connection: Connection) -> None:
        self.owner.lose(connection)

    def distrust(self) -> None:
        self.owner.distrust()


def is_promising(received: bytes) -> bool:
    """Whether this can become a head that we read; http.client knows what is wrong with the others."""
    return len(received) <= LARGEST_PLAIN_BYTES and received.startswith(HTTP[: len(received)])


def body_of(head: Head, method: str) -> int | None:
    """The length of the body, -1 if it comes in chunks, None for what http.client should work out."""
    fields = head.fields
    encoding = fields.get("transfer-encoding")
    length = fields.get("content-length")
    if encoding is not None:
        return -1 if encoding[1:] == ("chunked",) and length is None and has_body(head, method) else None
    if not has_body(head, method):
        return 0 if length is None or is_plain_number(length) else None
    return int(length[1]) if length is not None and is_plain_number(length) else None


def is_plain_number(field: tuple[str, ...]) -> bool:
    """Whether a field came once and is a number that nobody can read in another way."""
    return len(field) == 2 and len(field[1]) < 19 and field[1].isdecimal() and field[1].isascii()


def has_body(head: Head, method: str) -> bool:
    return method != "HEAD" and head.status not in (204, 304)


def chunks_of(received: bytes, position: int) -> list[bytes] | None:
    """The chunks, if all have arrived with nothing behind them; None if not, or they aren't plain."""
    pieces: list[bytes] = []
    while True:
        end = received.find(b"\r\n", position)
        size_text = received[position:end]
        if end < 0 or len(size_text) > 8 or not size_text.isalnum():
            return None
        try:
            size = int(size_text, 16)
        except ValueError:
            return None
        position = end + 2
        if size == 0:
            return pieces if received[position:] == b"\r\n" else None
        if received[position + size : position + size + 2] != b"\r\n":
            return None
        pieces.append(received[position : position + size])
        position += size + 2


def plain(sock: Any) -> Any:
    """gevent's socket as a bare non-blocking one: we do the waiting, and its methods cost a third of a request."""
    family, kind, proto = sock.family, sock.type, sock.proto
    bare = _socket.socket(family, kind, proto, fileno=sock.detach())
    bare.setblocking(False)
    return bare


def check_name(wrapped: Any, host: str) -> None:
    """Check the host's name, for contexts that don't check it themselves. Raises CertificateError."""
    _match_hostname(wrapped.getpeercert(), host.rstrip("."), False)
