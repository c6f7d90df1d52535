"""One connection to an upstream: bytes out and bytes in, each wait bounded by a timeout and by the request's budget.

The socket never blocks. A call that waits gives the hub to others until a watcher, a timer, a cut or a close calls it
back; nobody else may use the connection meanwhile. A wait that did not end well leaves a connection that is closed, so
a late answer finds nobody: no reply can reach the request that comes next.
"""

import errno
import re
import select
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Protocol
from weakref import ref

from gevent import monkey
from gevent.exceptions import BlockingSwitchOutError
from gevent.hub import get_hub
from greenlet import getcurrent

from ...errors import BudgetSpent
from ...forking import real_close
from ...in_flight import CURRENT, EVERYWHERE, Wait
from ..giving_way import before_more, moved

READ, WRITE = 1, 2
RECEIVE_BYTES = 65_536
# The system's own: gevent's asks the loop, and some systems have none.
POLL = monkey.get_original("select", "poll") if hasattr(select, "poll") else None
# The value that ends a wait, beside its watcher and its timer.
CLOSED = object()
# Keep-Alive: timeout=5, max=100
TIMEOUT, MAX = (re.compile(rf'\b{name}\s*=\s*"?(\d{{1,9}})', re.IGNORECASE).search for name in ("timeout", "max"))
# How some say that they close a connection which was idle for too long.
PARTING_WORDS = (b"HTTP/1.1 408 ", b"HTTP/1.0 408 ")


class Owner(Protocol):
    """The owner: it is told when a connection has become useless, and takes it back."""

    def give_back(self, connection: "Connection") -> None: ...

    def lose(self, connection: "Connection") -> None: ...

    def distrust(self) -> None:
        """The other side has said something that nobody asked for."""


class Connection:
    """A connected socket, plain or TLS, that one request at a time uses.

    `sock` is non-blocking: a `_socket.socket`, or gevent's SSLSocket with a timeout of 0. `where` is "host:port".
    `timeout_seconds` bounds each single wait as `requests` means it; None is for ever.
    """

    __slots__ = (
        "_idle_watcher",
        "_last_user",
        "_mark",
        "_poll",
        "_read_watcher",
        "_receive",
        "_send",
        "_waiting",
        "_write_watcher",
        "has_sent",
        "hub",
        "idle_since",
        "is_closed",
        "is_tls",
        "is_verified",
        "keep_seconds",
        "most_uses",
        "opened_at",
        "owner",
        "position",
        "received",
        "sock",
        "timeout_seconds",
        "uses",
        "where",
    )

    def __init__(self, sock: Any, where: str, owner: Owner, *, is_tls: bool = False) -> None:
        self.hub: Any = get_hub()
        self.where = where
        self.owner = owner
        self.is_tls = is_tls
        self.is_verified = False
        self.is_closed = False
        self.has_sent = False  # the kernel took something; somebody may have read it
        self.opened_at = 0.0
        self.idle_since = 0.0
        self.uses = 0
        # The other side's limit for keeping it (Keep-Alive); None: it gave none.
        self.keep_seconds: float | None = None
        self.most_uses: int | None = None
        self._last_user: ref[Any] | None = None
        self.timeout_seconds: float | None = None
        # Bytes that have arrived and were not taken yet: received[position:].
        self.received = b""
        self.position = 0
        self._waiting: Any = None
        self._mark = Wait("upstream", where, EVERYWHERE)  # of whoever waits
        self.sock = sock
        self._receive = sock.recv
        self._send = sock.send
        self._poll: Any = None
        if not is_tls and POLL is not None:
            poll = POLL()
            poll.register(sock.fileno(), select.POLLIN)
            self._poll = poll.poll
        self._read_watcher = self.hub.loop.io(sock.fileno(), READ)
        # Not counted by the loop: a kept connection does not keep a process from ending.
        self._idle_watcher = self.hub.loop.io(sock.fileno(), READ, ref=False)
        self._write_watcher: Any = None  # made when first needed: few requests fill the socket's buffer

    def handshake(self) -> None:
        """Do TLS's. Raises ssl.SSLError, OSError, or TimeoutError."""
        while True:
            try:
                self.sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                self._wait_read()
            except ssl.SSLWantWriteError:
                self._wait_write()

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises OSError, TimeoutError among them.

        Runs on: any greenlet; switches only when the socket's buffer is full.
        """
        view: bytes | memoryview = data
        while view:
            try:
                sent = self._send(view)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait_write()
            except ssl.SSLWantReadError:
                self._wait_read()
            else:
                self.has_sent = True
                if sent == len(view):
                    return
                if not sent:  # gevent's own SSLSocket says so where others raise SSLWantWriteError
                    self._wait_write()
                view = memoryview(view)[sent:]

    def send_all(self, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            self.send(chunk)

    def receive(self) -> bytes:
        """The bytes that come next, b"" at the end. Raises OSError, TimeoutError among them.

        Runs on: any greenlet; switches.
        """
        if not self.is_tls:
            self._wait_read()  # trying first would mostly fail, and costs more than asking the loop
        before_more()
        while True:
            try:
                received: bytes = self._receive(RECEIVE_BYTES)
                moved(len(received))
                return received
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait_read()
            except ssl.SSLWantWriteError:
                self._wait_write()

    def use(self, user: Any, now: float) -> None:
        """`user`, something that can be referred to weakly, is about to ask on it."""
        if not self.uses:
            self.opened_at = now
        self.uses += 1
        self._last_user = ref(user)

    def was_used_by(self, user: Any) -> bool:
        return self._last_user is not None and self._last_user() is user

    def has_user(self) -> bool:
        """Whether the one who used it last is still there."""
        return self._last_user is not None and self._last_user() is not None

    def obey(self, keep_alive: str) -> None:
        """An answer's Keep-Alive. It says when the other side closes, and so when it may just be closing.

        Of `max` there are two readings, all requests of the connection and those that are left; both hold.
        """
        if timeout := TIMEOUT(keep_alive):
            seconds = int(timeout[1])
            self.keep_seconds = max(seconds - 1.0, seconds / 2)
        if most := MAX(keep_alive):
            self.most_uses = int(most[1]) if self.most_uses is None else min(self.most_uses, int(most[1]))

    def is_quiet(self) -> bool:
        """Whether a connection that waited in the pool can be used: open, and nobody has said anything."""
        if self.is_closed or self.received:
            return False
        if self._poll is not None:
            return not self._poll(0)  # a fourth of what looking by recv() costs, which raises when there is nothing
        return self._unasked() is None

    def _unasked(self) -> bytes | None:
        """Return bytes that came unasked: b"" is the end, None nothing at all."""
        try:
            if self.is_tls:
                said: bytes = self._receive(len(PARTING_WORDS[0]))  # takes in session tickets, which say nothing
            else:
                said = self._receive(len(PARTING_WORDS[0]), socket.MSG_PEEK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError:
            return b""
        return said

    def watch(self) -> None:
        """It is idle from now on: close it as soon as the other side does, or says anything."""
        self._idle_watcher.start(self._stirred)

    def unwatch(self) -> None:
        self._idle_watcher.stop()

    def drop(self) -> None:
        """Close an idle connection. If something unasked was said meanwhile, that counts against the upstream."""
        if not self.is_quiet():
            self._stirred()
        self.close()

    def _stirred(self) -> None:
        """Runs on: the hub, and whoever drops it."""
        said = b"" if self.is_closed else self._unasked()
        if said is None:
            return
        if said and said not in PARTING_WORDS:
            self.owner.distrust()
        self.close()

    def close(self) -> None:
        """Close at once. A call that waits gets an OSError. Safe to call again, from any greenlet and any thread."""
        if self.is_closed:
            return
        self.is_closed = True
        for watcher in (self._idle_watcher, self._read_watcher):
            watcher.stop()
            watcher.close()
        if self._write_watcher is not None:
            self._write_watcher.stop()
            self._write_watcher.close()
        if self._waiting is not None:
            self.hub.loop.run_callback_threadsafe(self._wake_closed, self._waiting)
        try:
            # gevent's TLS socket waits a moment before it closes unless told that nobody uses it; so take the number.
            self.sock.close()
        finally:
            self.owner.lose(self)

    def abandon(self) -> None:
        """In a forked child: close this copy of the socket and forget the rest, which is the parent's."""
        self.is_closed = True
        self._idle_watcher.stop()  # the loop's copy in this process; or it would watch whoever gets the number next
        real_close(self.sock.detach())

    def _wake_closed(self, greenlet: Any) -> None:
        if self._waiting is greenlet:
            greenlet.switch(CLOSED)

    def _wait_read(self) -> None:
        self._wait(self._read_watcher)

    def _wait_write(self) -> None:
        if self._write_watcher is None:
            self._write_watcher = self.hub.loop.io(self.sock.fileno(), WRITE)
        self._wait(self._write_watcher)

    def _wait(self, watcher: Any) -> None:
        """Wait until the socket is ready.

        Raises TimeoutError when the time is over, BudgetSpent among them; OSError when it is closed meanwhile.
        """
        if self.is_closed:
            raise OSError(errno.EBADF, "the connection was closed")
        hub = self.hub
        greenlet: Any = getcurrent()
        if greenlet is hub:
            raise BlockingSwitchOutError("a request may not wait in the hub")
        seconds = self.timeout_seconds
        switch = greenlet.switch
        self._waiting = greenlet
        watcher.start(switch, watcher)
        timer = None
        if seconds is not None:
            timer = hub.loop.timer(seconds)
            # The loop's own time is that of its last turn: a caller that has computed since then would lose that time.
            timer.start(switch, timer, update=True)
        mark = self._mark
        mark.__enter__()
        try:
            woken_by = hub.switch()
        finally:
            self._waiting = None
            if timer is not None:
                timer.stop()
                timer.close()
            if not self.is_closed:
                watcher.stop()
            mark.__exit__(None, None, None)
            # A greenlet that somebody refers to can't serve another request, and this connection lives on.
            mark.greenlet = mark.record = None
        if woken_by is watcher:
            return
        if woken_by is CLOSED:
            raise OSError(errno.EBADF, "the connection was closed")
        if timer is not None and woken_by is timer:
            raise TimeoutError("timed out")
        raise RuntimeError(f"a request was switched to while it waited for {self.where}")


def spent() -> BudgetSpent:
    record = CURRENT.get()
    return BudgetSpent("the request's budget is spent" if record is None else record.why())
