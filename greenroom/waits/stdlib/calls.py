"""Sleep, sockets, select, subprocesses: each wait is named, may be ended or not, and times out as its callers know it.

Not ended are a socket without a timeout, select and poll, and pipes: whoever calls those does not expect to stop
half-way, in the middle of a reply that would be the next caller's.
"""

import _socket
import functools
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent.select
import gevent.selectors
import gevent.socket

from ...errors import BudgetSpent
from ...in_flight import CURRENT, UNLOCKED, Kind, TimedWait, Wait
from ...replacements import Put, part
from .. import peers

# As the system has it: that of a TLS socket forgets that it is one.
plain_socket: Any = _socket.socket


@part("waits")
def install(put: Put) -> None:
    """Runs on: the main thread, after patching."""
    put(time, "sleep", sleep(time.sleep))
    # gevent's sockets, TLS ones included, wait in this method. Private to gevent; a test holds it fast.
    green: Any = gevent.socket.socket
    put(green, "_wait", socket_wait(green._wait))
    put(green, "connect", connecting(green.connect))
    ready = look(select.select)
    for module in (gevent.select, select):
        put(module, "select", ready)
    poll: Any = gevent.select.poll
    put(poll, "poll", look(poll.poll))
    selector: Any = gevent.selectors.GeventSelector
    put(selector, "select", look(selector.select))
    process: Any = subprocess.Popen
    put(process, "wait", process_wait(process.wait, timeout_at=1))
    put(process, "communicate", process_wait(process.communicate, timeout_at=2))


def sleep(plain: Callable[[float], None]) -> Callable[[float], None]:
    """One that is ended raises: code after a sleep relies on the time having passed."""

    @functools.wraps(plain)
    def sleep(seconds: float) -> None:
        if CURRENT.get() is None:
            plain(seconds)
        else:
            with Wait("sleep", "", UNLOCKED):
                plain(seconds)

    return sleep


# Where sockets are being connected to, by their ids: until they are they can't tell.
on_their_way: dict[int, str] = {}


def connecting(plain: Callable[..., None]) -> Callable[..., None]:
    """A socket's connect(): where it leads is known while it waits, and counted when it fails."""

    @functools.wraps(plain)
    def connect(self: Any, address: Any) -> None:
        if CURRENT.get() is None:
            plain(self, address)
            return
        name = f"{address[0]}:{address[1]}" if type(address) is tuple and len(address) > 1 else str(address)
        on_their_way[id(self)] = name
        try:
            plain(self, address)
        except BlockingIOError:
            raise
        except OSError as exc:
            peers.not_connected(name, exc)
            raise
        finally:
            on_their_way.pop(id(self), None)

    return connect


class SocketWait(TimedWait):
    """A wait at a socket that has a timeout. It is not ended where that would be felt by somebody else."""

    __slots__ = ("is_reading", "sock")

    def __init__(self, sock: Any, is_reading: bool) -> None:
        TimedWait.__init__(self, "upstream", peer_name(sock), sock.timeout)
        self.sock = sock
        self.is_reading = is_reading

    def can_end(self) -> bool:
        """Not datagrams, of which a late one would be taken for an answer to the next question, and not where another
        greenlet waits for the other direction."""
        sock = self.sock
        other = sock._write_event if self.is_reading else sock._read_event
        is_alone = other is not None and other.callback is None
        return self.has_timeout and is_alone and sock.type == socket.SOCK_STREAM


def socket_wait(plain: Callable[..., None]) -> Callable[..., None]:
    """A socket's wait, named by where it leads to. One that was ended leaves a socket that is shut down."""

    def wait(self: Any, watcher: Any, timeout_exc: Any = None) -> None:
        if CURRENT.get() is None:
            plain(self, watcher, timeout_exc)
            return
        try:
            with SocketWait(self, watcher is self._read_event):
                plain(self, watcher, timeout_exc)
                return
        except BudgetSpent:
            end_connection(self)
            raise
        end_connection(self)
        raise TimeoutError("timed out") if timeout_exc is None else timeout_exc

    return wait


def end_connection(sock: Any) -> None:
    """Make the next use of this socket an error, so that it never reads the rest of another request's reply."""
    try:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            plain_socket.shutdown(sock._sock, socket.SHUT_RDWR)
    except OSError:
        pass  # it is not connected, or not any more


def peer_name(sock: Any) -> str:
    """`host:port`, a path, or "" while it leads nowhere."""
    try:
        peer = sock._sock.getpeername()
    except OSError:
        return on_their_way.get(id(sock), "")
    return f"{peer[0]}:{peer[1]}" if type(peer) is tuple else str(peer)


class Look(Wait):
    """A wait for any of some sockets, mostly one of many pieces of a longer wait: insight joins them.

    It is not ended, with a timeout or without: that would leave a conversation half-way, on a socket that nobody shuts
    down, and the answer would be taken for one to the next question.
    """

    __slots__ = ()


# Libraries that wait by polling, and what that wait is. psycopg (3) polls ten times a second.
POLLING: dict[str, tuple[Kind, str]] = {"psycopg.waiting": ("query", "a query through psycopg")}


def look(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is None:
            return plain(*args, **kwargs)
        kind, detail = POLLING.get(sys._getframe(1).f_globals.get("__name__", ""), ("other", plain.__name__))
        with Look(kind, detail):
            return plain(*args, **kwargs)

    return call


def process_wait(plain: Callable[..., Any], *, timeout_at: int) -> Callable[..., Any]:
    """Popen.wait and communicate; subprocess.run and the end of `with Popen()` are made of these."""

    @functools.wraps(plain)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is None:
            return plain(self, *args, **kwargs)
        timeout = args[timeout_at - 1] if len(args) >= timeout_at else kwargs.get("timeout")
        with TimedWait("other", "subprocess", timeout):
            return plain(self, *args, **kwargs)
        raise subprocess.TimeoutExpired(self.args, timeout or 0.0)

    return wait
