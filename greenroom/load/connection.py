"""One connection of the generator, never blocking: connect, TLS, send, receive; one request at a time.

connecting ──> (TLS handshake) ──> idle <──> sending ──> receiving
                                     │ the server closes it: gone, and no error
"""

import errno
import select
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .request import Prepared
from .wire import AnswerReader, Garbled

if TYPE_CHECKING:
    from .engine import Engine

RECEIVE_BYTES = 262_144
READ, WRITE = select.POLLIN, select.POLLOUT
CONNECTING, SHAKING, OPEN, CLOSED = range(4)
# Of errors on a connection, those that have a plain name.
_KINDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ECONNABORTED: "connection reset",
    errno.ETIMEDOUT: "no answer to connect",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.EADDRNOTAVAIL: "no free port",
    errno.EMFILE: "no free descriptor",
    errno.ENFILE: "no free descriptor",
}
# Errors of this machine, which tell nothing about the server.
OURS = ("no free port", "no free descriptor")


@dataclass(slots=True)
class PendingRequest:
    """One request under way. `due` is its planned moment, in seconds from the beginning of the run."""

    due: float
    prepared: Prepared
    is_done: bool = False
    hops: int = 0
    connection: "Connection | None" = None


def kind_of(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate not trusted ({exc.verify_message})"
    if isinstance(exc, ssl.SSLError):
        return "TLS failed"
    return _KINDS.get(exc.errno or 0, (exc.strerror or str(exc)).lower())


class Connection:
    """HTTP/1.1. The engine is told the outcome of its request: `answered` or `failed`."""

    __slots__ = ("_out", "_state", "call", "engine", "fd", "is_idle", "mask", "reader", "sock")

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.call: PendingRequest | None = None
        self.is_idle = False
        self.reader = AnswerReader(engine.largest_bytes, engine.heads)
        self._out = b""
        self._state = CONNECTING
        self.sock: socket.socket = _new_socket(engine)
        self.fd = self.sock.fileno()
        self.mask = 0

    @property
    def is_connecting(self) -> bool:
        return self._state in (CONNECTING, SHAKING)

    def open(self, call: PendingRequest) -> None:
        """Connect for a request. Raises OSError."""
        self.call = call
        call.connection = self
        self._out = call.prepared.raw
        code = self.sock.connect_ex(self.engine.target.address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect")
        self._watch(WRITE)

    def start(self, call: PendingRequest) -> None:
        """Send a request on this connection, which is idle."""
        self.call = call
        call.connection = self
        prepared = call.prepared
        self.reader.begin(is_head_request=prepared.is_head, keeps_body=prepared.reads_body, events=prepared.events)
        self._out = prepared.raw
        try:
            self._send()
        except OSError as exc:
            self.fail(kind_of(exc))

    def on_event(self, mask: int) -> None:
        if self._state == CLOSED:
            return
        try:
            if self._state == CONNECTING:
                self._connected()
            elif self._state == SHAKING:
                self._shake()
            elif mask & ~WRITE:
                self._receive()
            elif self._out:
                self._send()
        except OSError as exc:
            self.fail(kind_of(exc))
        except Garbled as exc:
            self.fail(str(exc))

    def _connected(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "connect")
        context = self.engine.tls
        if context is None:
            self._ready()
            return
        self.sock = context.wrap_socket(
            self.sock, server_hostname=self.engine.target.host, do_handshake_on_connect=False
        )
        self._state = SHAKING
        self._shake()

    def _shake(self) -> None:
        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(READ)
        except ssl.SSLWantWriteError:
            self._watch(WRITE)
        else:
            self._ready()

    def _ready(self) -> None:
        self._state = OPEN
        call = self.call
        if call is not None:
            prepared = call.prepared
            self.reader.begin(is_head_request=prepared.is_head, keeps_body=prepared.reads_body, events=prepared.events)
        self._watch(READ)
        self._send()

    def _send(self) -> None:
        out = self._out
        try:
            sent = self.sock.send(out)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        if sent == len(out):
            self._out = b""
            if self.mask != READ:
                self._watch(READ)
        else:
            self._out = out[sent:]
            self._watch(READ | WRITE)

    def _receive(self) -> None:
        while True:
            try:
                data = self.sock.recv(RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            call = self.call
            if call is None:  # the server closed an idle connection, or sent what nobody asked for
                self.close()
                return
            if self.reader.feed(data) if data else self.reader.feed_end():
                self._complete(call)
                return
            if self.engine.tls is None:
                return

    def _complete(self, call: PendingRequest) -> None:
        self.call = None
        call.connection = None
        if not self.reader.keeps_connection or self._out or self.engine.new_connections:
            self.close()
        self.engine.answered(self, call, self.reader)

    @property
    def can_take_another(self) -> bool:
        return self._state == OPEN and self.call is None

    def fail(self, kind: str) -> None:
        """The connection is of no use any more, and its request has no answer."""
        call, self.call = self.call, None
        self.close()
        if call is not None:
            call.connection = None
            self.engine.failed(call, kind)

    def give_up(self, call: PendingRequest, kind: str) -> None:
        """The request's time is up."""
        self.fail(kind)

    def close(self) -> None:
        if self._state == CLOSED:
            return
        self._state = CLOSED
        self.engine.forget(self)
        self.sock.close()

    def _watch(self, mask: int) -> None:
        self.engine.watch(self, mask)


def _new_socket(engine: "Engine") -> socket.socket:
    sock = socket.socket(engine.target.family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
