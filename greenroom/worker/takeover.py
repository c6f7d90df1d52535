"""environ["gunicorn.socket"]: code that uses it owns the connection, and the request becomes something else.

It has no budget from then on, is not cut when its client leaves (the owner sees that in the socket), and nothing of
ours goes onto that wire: no 504, no error page. An application that has only looked (getpeername, MSG_PEEK) may still
answer as usual.

At a stop a WebSocket is told: the connection is shut down for reading, and where the client's frames end, its owner
reads one more, "close, 1001: going away". So the owner's own library answers with the close frame that RFC 6455 wants,
and ends. The owner of any other protocol reads the end of the connection, when the worker has to stop.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..in_flight import FOREVER, Record
from .transport import Data

# A client's frame: FIN and close, masked with zeros, status 1001.
GOING_AWAY = b"\x88\x82\x00\x00\x00\x00\x03\xe9"
# Attributes of a socket that use the connection; some more are methods here.
USES = frozenset(
    "close detach dup makefile read recvfrom recvfrom_into recvmsg recvmsg_into sendfile sendmsg sendto"
    " shutdown unwrap write".split()
)

# Attributes that only tell of the connection and its TLS, and take nothing over.
LOOKS = frozenset("cipher getpeercert getpeername getsockname selected_alpn_protocol shared_ciphers version".split())


class Owner(Protocol):
    """The connection of a running request."""

    record: Record | None

    def take_over(self, taken: "ClientsSocket") -> Any:
        """The socket for the application. Raises ConnectionError when the request has been answered already."""

    def look(self, name: str) -> Any:
        """The method `name` of the connection, one of LOOKS, which changes nothing."""

    def shut_down_receiving(self) -> None:
        """Let whoever waits for the client go on, and read the end."""


class ClientsSocket:
    """The client's socket as applications see it, made when somebody uses it.

    `record` is the request that has it: a later one of the same connection is somebody else's.
    """

    __slots__ = ("_frames", "_last_words", "_owner", "_sock", "is_used", "lost", "record", "told_at")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.record = owner.record
        self._sock: Any = None
        self._frames: Frames | None = None
        self._last_words = b""
        self.is_used = False
        self.told_at = FOREVER  # when it was told that the worker stops
        self.lost: OSError | None = None  # how its owner was told that the client has left

    def _take(self, *, is_use: bool = True) -> Any:
        if self._sock is None or (not self.is_used and self.record is not None and self.record.is_over):
            self._sock = self._owner.take_over(self)
        self.is_used = self.is_used or is_use
        return self._sock

    def __getattr__(self, name: str) -> Any:
        if name in LOOKS and self._sock is None:
            return self._owner.look(name)
        return getattr(self._take(is_use=name in USES), name)

    def send(self, data: Data, flags: int = 0) -> int:
        """All of `data` where the socket has no timeout, as the kernel's blocking sockets do; gevent's send a part."""
        sock = self._take()
        if sock.gettimeout() is None:
            self.sendall(data, flags)
            return memoryview(data).nbytes
        with self._noting_loss():
            return int(sock.send(data, flags))

    def sendall(self, data: Data, flags: int = 0) -> None:
        with self._noting_loss():
            self._take().sendall(data, flags)

    @contextmanager
    def _noting_loss(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
            self.lost = exc
            raise

    def recv(self, size: int = 4096, flags: int = 0) -> bytes:
        is_peek = bool(flags & socket.MSG_PEEK)
        sock = self._take(is_use=not is_peek)
        try:
            with self._noting_loss():
                data = sock.recv(size, flags) if flags else sock.recv(size)
        except OSError:
            if not self.is_told:
                raise
            data = b""
        return data if is_peek else self._received(data, size)

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        view = memoryview(buffer).cast("B")
        data = self.recv(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data)

    def _received(self, data: bytes, size: int) -> bytes:
        if self._frames is None:
            return data
        if data:
            self._frames.feed(data)
        elif self.is_told and self._frames.is_between:
            data, self._last_words = self._last_words[:size], self._last_words[size:]
        return data

    def became_websocket(self) -> None:
        self._frames = Frames()

    @property
    def is_websocket(self) -> bool:
        return self._frames is not None

    @property
    def is_told(self) -> bool:
        return self.told_at < FOREVER

    def tell(self, now: float) -> None:
        """The worker stops. Runs on: any greenlet; never waits."""
        if not self.is_told:
            self.told_at = now
            self._last_words = GOING_AWAY
            self._owner.shut_down_receiving()


class Frames:
    """Where a client's WebSocket frames begin and end (RFC 6455 5.2)."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""  # of a frame, while it is not whole
        self._left = 0  # of the payload of the frame that comes

    @property
    def is_between(self) -> bool:
        return not self._head and not self._left

    def feed(self, data: bytes) -> None:
        start, end = 0, len(data)
        while start < end:
            if self._left:
                step = min(self._left, end - start)
                self._left -= step
                start += step
                continue
            wanted = self._head_bytes() - len(self._head)
            self._head += data[start : start + wanted]
            start += wanted
            if len(self._head) == self._head_bytes():
                self._left = self._payload_bytes()
                self._head = b""

    def _head_bytes(self) -> int:
        if len(self._head) < 2:
            return 2
        return 2 + {126: 2, 127: 8}.get(self._head[1] & 0x7F, 0) + (4 if self._head[1] & 0x80 else 0)

    def _payload_bytes(self) -> int:
        length = self._head[1] & 0x7F
        return int.from_bytes(self._head[2 : {126: 4, 127: 10}[length]]) if length > 125 else length
