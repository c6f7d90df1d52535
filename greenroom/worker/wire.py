"""Bytes to and from one client, over its transport. Every wait is bounded, and nothing here waits in the hub."""

import errno
import os
import socket
import struct
from typing import Any, Protocol

from gevent import get_hub
from gevent import socket as green
from gevent.hub import Waiter
from gunicorn.http.body import Body

from .. import deadline
from ..in_flight import Wait
from ..waits.in_loop import for_any_thread
from .client_errors import BodyCutShort, BodyTooSlow, ClientLeft, ClientTooSlow
from .fair import PIECE_BYTES, Piece
from .patience import Patience
from .progress import TakesNothing, wait_for_room
from .takeover import ClientsSocket
from .transport import Transport, is_tls

RECEIVE_BYTES = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for 0 s: the kernel sends RST instead of FIN
# sendfile's errors for a file that it can't read (some file systems can't); it can be read like any other then.
CANT_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Owner(Protocol):
    """A callee for bytes that come while no request waits for them, and for a body that did not come."""

    def on_readable(self) -> None: ...

    def body_failed(self, exc: ClientLeft | ClientTooSlow) -> None: ...


class Wire:
    """The transport of one connection (`sock`), and the watchers to wait for it with.

    `reader` is the owner's watcher, while no request waits for a body. `interim` is "100 Continue" while it is owed to
    the client: sent when the application first asks for the body, never after the answer has begun. `is_over`: the
    running request has been answered in place of its application, which gets nothing of the client any more.

    `is_broken`: something went out in part, and its rest never will. Whatever came behind it would be taken for that
    rest, so nothing more is sent, and the connection ends.
    """

    __slots__ = (
        "body",
        "green",
        "interim",
        "is_broken",
        "is_over",
        "is_sending",
        "is_tls",
        "owner",
        "patience",
        "piece",
        "reader",
        "send_timeout_seconds",
        "sock",
        "taken",
        "waiter",
    )

    def __init__(
        self,
        sock: Transport,
        reader: Any,
        owner: Owner,
        *,
        body_timeout_seconds: float,
        send_timeout_seconds: float,
    ) -> None:
        self.sock = sock
        self.is_tls = is_tls(sock)
        self.reader = reader
        self.owner: Owner | None = owner
        self.patience = Patience(body_timeout_seconds)
        self.send_timeout_seconds = send_timeout_seconds
        self.interim = b""
        self.is_over = self.is_broken = False
        self.piece = Piece()
        self.is_sending = False  # something is on the wire in part, and the rest is under way
        self.waiter: Any = None  # of the greenlet that waits for the body
        # The body of the running request; the application may put another into its environ.
        self.body: Body | None = None
        # gevent's socket over the same connection, once somebody has asked for it, and what they see of it.
        self.green: Any = None
        self.taken: ClientsSocket | None = None

    @for_any_thread
    def receive(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises BodyTooSlow, BodyCutShort, ClientLeft; the owner has been told before.

        So the client is answered, whatever the application makes of it. Runs on: request greenlet; switches.
        """
        try:
            return self._receive(size)
        except (ClientLeft, ClientTooSlow) as exc:
            if self.owner is not None and not self.is_over:
                self.owner.body_failed(exc)
            raise

    def _receive(self, size: int) -> bytes:
        if self.is_over:
            raise ClientLeft("the request was answered before its body had been read")
        if self.interim:
            interim, self.interim = self.interim, b""
            self.send(interim)
        while True:
            try:
                data = self.sock.recv(size)
            except BlockingIOError:
                self._wait_readable()
                continue
            except OSError as exc:
                raise ClientLeft(f"the client left before its body was complete: {exc}") from exc
            if not data:  # gunicorn would hand the application the part that came, as if it were the whole
                raise BodyCutShort("the client left before its body was complete")
            self.patience.came(len(data))
            if not self.reader.active and self.owner is not None:
                self.reader.start(self.owner.on_readable)  # so that it is seen when the client leaves
            self.piece.did(len(data))
            return data

    def _wait_readable(self) -> None:
        """Wait for more of the body, as long as patience lasts and nobody ends the request."""
        self.piece.waited()
        waiter = self.waiter = Waiter()
        self.reader.stop()
        self.reader.start(waiter.switch, None)
        try:
            self.patience.wait(waiter)
        finally:
            self.waiter = None
            if not self.is_over:
                self.reader.stop()
        if self.is_over:
            raise BodyTooSlow("the request ended before the rest of its body came")

    def end(self) -> None:
        """The client has been answered: a wait for the body is woken, and gets an error. Runs on: hub, any."""
        self.is_over = True
        self.interim = b""
        if self.waiter is not None:
            self.reader.stop()
            get_hub().loop.run_callback(self.waiter.switch, None)

    @for_any_thread
    def send(self, data: bytes | memoryview) -> None:
        """All of `data`. Raises ClientTooSlow when the client takes nothing for too long, ClientLeft.

        Runs on: request greenlet; switches if the client is slow, and after a piece of work.
        """
        self._send(data)

    def _send(self, data: bytes | memoryview, *, is_begun: bool = False) -> None:
        """`is_begun`: this is the rest of something."""
        if self.is_broken:
            raise ClientLeft("the connection ends: what was sent before did not get through")
        rest = data
        try:
            while True:
                try:
                    sent = self.sock.send(rest)
                except BlockingIOError:
                    sent = 0
                if sent == len(rest):
                    break
                is_begun = is_begun or sent > 0 or self.is_tls  # a record that is under way can't be taken back
                rest = memoryview(rest)[sent:]
                self.is_sending = True
                try:
                    self.wait_writable()
                finally:
                    self.is_sending = False
        except BaseException as exc:  # also what an application's own timeouts throw in
            self.is_broken = self.is_broken or is_begun
            if isinstance(exc, OSError) and not isinstance(exc, ClientLeft | ClientTooSlow):
                raise ClientLeft(f"the client left before its answer was complete: {exc}") from exc
            raise
        self.piece.did(len(data))

    @for_any_thread
    def send_parts(self, *parts: bytes) -> None:
        """`parts` one after the other, as `send` does, without joining what may be large."""
        if self.is_tls:  # the same bytes have to be offered again when they could not be sent
            self._send(b"".join(parts))
            return
        if self.is_broken:
            raise ClientLeft("the connection ends: what was sent before did not get through")
        try:
            sent = self.sock.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            raise ClientLeft(f"the client left before its answer was complete: {exc}") from exc
        is_begun = sent > 0
        self.piece.did(sent)
        for part in parts:
            if sent < len(part):
                self._send(memoryview(part)[sent:], is_begun=is_begun)
                is_begun = True
            sent = max(0, sent - len(part))

    def try_send(self, data: bytes) -> bool:
        """Send `data` if the kernel takes all of it at once; False if it does not. Runs on: hub; never waits.

        Where it took a part, that was the last of this connection.
        """
        if self.is_broken or self.is_sending:
            return False
        try:
            sent = self.sock.send(data)
        except OSError:
            self.is_broken = self.is_tls
            return False
        self.is_broken = sent < len(data)
        return not self.is_broken

    @for_any_thread
    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """`count` bytes of a file from `offset`, not copied through this process; returns how many there were.

        Runs on: request greenlet; switches if the client is slow. Reading the file itself can't be waited for.
        """
        sent = 0
        while sent < count:
            try:
                step = os.sendfile(self.sock.fileno(), descriptor, offset + sent, min(count - sent, PIECE_BYTES))
            except BlockingIOError:
                self.wait_writable()
                continue
            except ConnectionError as exc:
                raise ClientLeft(f"the client left before its answer was complete: {exc}") from exc
            except OSError as exc:
                if sent or exc.errno not in CANT_SENDFILE:
                    raise
                return self._send_read(descriptor, offset, count)
            if step == 0:
                break  # the file is shorter than it said
            sent += step
            self.piece.did(step)
        return sent

    def _send_read(self, descriptor: int, offset: int, count: int) -> int:
        sent = 0
        while sent < count and (data := os.pread(descriptor, min(count - sent, RECEIVE_BYTES), offset + sent)):
            self.send(data)
            sent += len(data)
        return sent

    def wait_writable(self) -> None:
        """Wait until the kernel takes more. Raises ClientTooSlow when the client takes nothing for too long."""
        self.piece.waited()
        writer: Any = get_hub().loop.io(self.sock.fileno(), 2)

        def wait(seconds: float) -> bool:
            try:
                green.wait(writer, seconds, NotYet())
            except NotYet:
                return False
            return True

        try:
            # An answer that has begun is sent, however late it is.
            with deadline.unbounded(), Wait("client", "answer"):
                if not wait_for_room(TakesNothing(self.sock, self.send_timeout_seconds), wait):
                    raise ClientTooSlow("the client did not take the answer in time")
        finally:
            writer.close()

    def open_green(self) -> Any:
        """gevent's socket over the same connection, with a descriptor of its own; it is closed with the connection."""
        if self.green is None:
            sock: Any = self.sock
            if self.is_tls:
                self.green = sock.open_green()
            else:
                self.green = green.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
        return self.green

    @property
    def is_used_by_application(self) -> bool:
        """Whether the application reads and writes here itself."""
        return self.taken is not None and self.taken.is_used

    def unread(self, *, peek: bool = False) -> bytes:
        """Bytes that have come and that nobody has read; `peek` looks at one, and leaves it there. Never waits.

        The kernel answers a close over such bytes with a reset.
        """
        try:
            return self.sock.recv(1, socket.MSG_PEEK) if peek else self.sock.recv(RECEIVE_BYTES)
        except OSError:  # nothing has come, or nobody is there any more
            return b""

    def take_ahead(self) -> bytes:
        """Return bytes that were peeked at; no watcher tells of them. Plain sockets leave them in the kernel."""
        sock: Any = self.sock
        data: bytes = sock.take_ahead() if self.is_tls else b""
        return data

    def shut_down_sending(self) -> bool:
        """Tell the client that no more will come; False if it is gone."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def close(self, *, reset: bool = False) -> None:
        """Close; `reset` makes sure that the client does not take what it got for all there is.

        Nobody may be waiting on the wire: a connection whose request runs is closed by that request's greenlet.
        """
        self.owner = None
        self.reader.stop()
        self.reader.close()
        if self.green is not None:
            self.green.close()
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        elif self.is_tls and not self.is_broken:
            sock: Any = self.sock
            sock.say_goodbye()
        self.sock.close()


class NotYet(Exception):
    """The kernel takes nothing yet."""
