"""TLS over a socket that never waits: what a request's greenlet and the hub use in place of the plain one.

The TLS object of the C module works on the socket's descriptor itself: no buffers of ours between them, and an idle
connection costs what OpenSSL keeps of it. Records are read whole, so what has come and is not read is in the kernel,
where the event loop sees it; the one that was only looked at is kept here.

Private to Python and to gevent: `SSLContext._wrap_socket`, which gevent's sockets use as well, and `_sslsock`, by which
gevent finds what to hand to a callback for SNI. Tests hold them fast.
"""

import _socket
import os
import ssl
from collections.abc import Iterable
from socket import MSG_PEEK, SHUT_RD
from typing import Any

import gevent.ssl
from gevent import socket as green
from gunicorn.sock import ssl_context

from ...gunicorns_parts import Config
from ..fair import PIECE_BYTES
from . import Data

RECORD_BYTES = 16_384  # the longest (RFC 8446 5.1)
Cipher = tuple[str, str, int]
NOT_YET = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


def context_of(cfg: Config) -> ssl.SSLContext | None:
    """The context that gunicorn's settings describe, its `ssl_context` hook included; None without TLS.

    Raises ValueError where the hook made something else than a context of Python's.
    """
    if not cfg.is_ssl:
        return None
    context: Any = ssl_context(cfg)
    if not isinstance(context, ssl.SSLContext):
        raise ValueError(f"the ssl_context hook has to return an ssl.SSLContext, and returned {context!r}")
    if cfg.suppress_ragged_eofs:
        # A client's early end is noticed by HTTP, whose messages have lengths. With this an answer can still be sent.
        context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context


class TLSSocket(_socket.socket):
    """One client's connection. Raises BlockingIOError as plain sockets do, and ssl.SSLError for what is no TLS.

    Bytes that `send` could not send have to be sent again, unchanged and first: their record may have left in part.
    """

    __slots__ = ("__weakref__", "_ahead", "_context", "_has_ended", "_is_quiet", "_tls")
    has_records = True

    def __init__(self, descriptor: int, context: ssl.SSLContext, *, is_quiet: bool) -> None:
        """`is_quiet`: a connection that ends without TLS's goodbye ends like any other."""
        super().__init__(fileno=descriptor)
        self.setblocking(False)
        self._context = context
        self._is_quiet = is_quiet
        self._has_ended = False
        self._ahead = b""
        self._tls: Any = context._wrap_socket(self, True, None, owner=self, session=None)  # type: ignore[attr-defined]

    # --- what callbacks for SNI ask of it

    @property
    def context(self) -> ssl.SSLContext:
        return self._context

    @context.setter
    def context(self, context: ssl.SSLContext) -> None:
        self._context = self._tls.context = context

    def _sslsock(self) -> "TLSSocket":
        return self

    def handshake(self) -> None:
        """Go on with it. Raises SSLWantReadError or SSLWantWriteError while it is not complete."""
        self._tls.do_handshake()

    # --- what was agreed

    def getpeercert(self, binary_form: bool = False) -> "ssl._PeerCertRetType":
        certificate: ssl._PeerCertRetType = self._tls.getpeercert(binary_form)
        return certificate

    def selected_alpn_protocol(self) -> str | None:
        protocol: str | None = self._tls.selected_alpn_protocol()
        return protocol

    def cipher(self) -> Cipher | None:
        cipher: Cipher | None = self._tls.cipher()
        return cipher

    def shared_ciphers(self) -> list[Cipher] | None:
        ciphers: list[Cipher] | None = self._tls.shared_ciphers()
        return ciphers

    def version(self) -> str | None:
        version: str | None = self._tls.version()
        return version

    # --- the stream

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return one record's bytes, b"" at the end. `size` is not kept to: a record's rest would go unnoticed."""
        data = self._ahead or self._read()
        self._ahead = data if flags & MSG_PEEK else b""
        return data

    def take_ahead(self) -> bytes:
        """Return the bytes that were peeked at: the event loop does not know of them."""
        data, self._ahead = self._ahead, b""
        return data

    def _read(self) -> bytes:
        if self._has_ended:
            return b""
        if self._tls is None:  # we have said goodbye: whatever still comes is thrown away
            return super().recv(RECORD_BYTES)
        try:
            data: bytes = self._tls.read(RECORD_BYTES)
        except NOT_YET:
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            if not self._is_quiet:
                raise
            data = b""
        self._has_ended = not data
        return data

    def send(self, data: Data, flags: int = 0) -> int:  # type: ignore[override]
        if self._tls is None:
            raise BrokenPipeError("the connection has been shut down for sending")
        if not data:
            return 0
        try:
            return int(self._tls.write(data if len(data) <= PIECE_BYTES else memoryview(data)[:PIECE_BYTES]))
        except NOT_YET:
            raise BlockingIOError from None

    def sendmsg(self, parts: Iterable[Data]) -> int:  # type: ignore[override]
        return self.send(b"".join(parts))

    def shutdown(self, how: int) -> None:
        if how != SHUT_RD:
            self.say_goodbye()
        super().shutdown(how)

    def say_goodbye(self) -> None:
        """Tell the client that no more will come, as TLS does. Never waits for its answer."""
        tls, self._tls = self._tls, None
        if tls is not None:
            try:
                tls.shutdown()
            except OSError:
                pass  # the client has not said it yet, or has left

    def open_green(self) -> "TakenSocket":
        """gevent's socket over the same connection, with a descriptor of its own, for an application that takes it."""
        plain: Any = green.socket(self.family, self.type, self.proto, fileno=os.dup(self.fileno()))
        taken = TakenSocket(
            plain,
            server_side=True,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=self._is_quiet,
            _context=self._context,
        )
        vars(taken)["_sslobj"] = self._tls
        taken.ahead = self.take_ahead()
        taken.of = self  # whose C object this uses
        return taken


class TakenSocket(gevent.ssl.SSLSocket):
    """gevent's socket over a connection whose handshake is over. `ahead`: what was read of it before."""

    ahead = b""
    of: TLSSocket

    def read(self, nbytes: int = 2014, buffer: Any = None) -> Any:
        if not self.ahead or not nbytes:
            return super().read(nbytes, buffer)
        data, self.ahead = self.ahead[:nbytes], self.ahead[nbytes:]
        if buffer is None:
            return data
        buffer[: len(data)] = data
        return len(data)

    def pending(self) -> int:
        return len(self.ahead) + int(super().pending())
