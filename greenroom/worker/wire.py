"""Bytes to and from one client. Every wait is bounded, and nothing here waits in the hub.

The socket is the plain, non-blocking one of the C module: gevent's has two watchers and a Python object more, which is
most of what an idle connection costs.
"""

import os
import socket
import struct
from typing import Any

from gevent import get_hub
from gevent import socket as green
from gunicorn.http.unreader import Unreader

RECEIVE_BYTES = 65_536
LARGEST_RECEIVE_BYTES = 1_048_576
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for 0 s: the kernel sends RST instead of FIN


class ClientTooSlow(TimeoutError):
    """The client sent nothing, or took nothing, for as long as the settings allow."""


class Wire:
    """The socket of one connection, and the watchers to wait for it with.

    `reader` is the connection's own watcher: it is the connection's while no request waits for a body.
    """

    __slots__ = ("body_timeout_seconds", "reader", "send_timeout_seconds", "sock")

    def __init__(self, sock: socket.socket, reader: Any, *, body_timeout_seconds: float, send_timeout_seconds: float):
        self.sock = sock
        self.reader = reader
        self.body_timeout_seconds = body_timeout_seconds
        self.send_timeout_seconds = send_timeout_seconds

    def receive(self, size: int) -> bytes:
        """Up to `size` bytes; b"" when the client has closed. Raises ClientTooSlow.

        Runs on: request greenlet; switches.
        """
        while True:
            try:
                return self.sock.recv(size)
            except BlockingIOError:
                self.reader.stop()
                green.wait(self.reader, self.body_timeout_seconds, ClientTooSlow("the rest of the body did not come"))

    def send(self, data: bytes) -> None:
        """All of `data`. Raises ClientTooSlow when the client takes nothing for too long.

        Runs on: request greenlet; switches if the client is slow.
        """
        rest: bytes | memoryview = data
        while True:
            try:
                sent = self.sock.send(rest)
            except BlockingIOError:
                sent = 0
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]
            self.wait_writable()

    def try_send(self, data: bytes) -> bool:
        """Send `data` if the kernel takes all of it at once; False if it does not. Runs on: hub; never waits."""
        try:
            return self.sock.send(data) == len(data)
        except OSError:
            return False

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """`count` bytes of a file from `offset`, not copied through this process; returns how many there were.

        Runs on: request greenlet; switches if the client is slow. Reading the file itself can't be waited for.
        """
        sent = 0
        while sent < count:
            try:
                step = os.sendfile(self.sock.fileno(), descriptor, offset + sent, min(count - sent, 0x7FFF_F000))
            except BlockingIOError:
                self.wait_writable()
                continue
            if step == 0:
                break  # the file is shorter than it said
            sent += step
        return sent

    def wait_writable(self) -> None:
        writer = get_hub().loop.io(self.sock.fileno(), 2)
        try:
            green.wait(writer, self.send_timeout_seconds, ClientTooSlow("the client did not take the answer"))
        finally:
            writer.close()

    def close(self, *, reset: bool = False) -> None:
        """Close; `reset` makes sure that the client does not take what it got for all there is."""
        self.reader.stop()
        self.reader.close()
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()


class NeedMore(Exception):
    """What has been received is not the whole head."""


class WireUnreader(Unreader):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's view of a connection: what was received already, then what the wire still brings.

    While a head is parsed (`may_wait` False, in the hub) it raises NeedMore instead of waiting.
    """

    def __init__(self, wire: Wire, received: bytes, *, may_wait: bool) -> None:
        super().__init__()
        self.wire = wire
        self.may_wait = may_wait
        self.interim = b""  # "100 Continue", owed to the client before it sends its body
        if received:
            self.buf.write(received)

    def chunk(self, size_hint: int | None = None) -> bytes:
        if not self.may_wait:
            raise NeedMore
        if self.interim:
            interim, self.interim = self.interim, b""
            self.wire.send(interim)
        return self.wire.receive(min(max(size_hint or 0, RECEIVE_BYTES), LARGEST_RECEIVE_BYTES))


class GreenSocket:
    """environ["gunicorn.socket"]: gevent's socket over the same connection, made when somebody uses it.

    It has a descriptor of its own (dup), so closing either leaves the other whole.
    """

    __slots__ = ("_made", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            self._made = green.socket(
                self._sock.family, self._sock.type, self._sock.proto, fileno=os.dup(self._sock.fileno())
            )
        return getattr(self._made, name)
