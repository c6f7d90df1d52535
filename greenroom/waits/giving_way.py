"""A source that is always ready gives way after a bounded piece: a fast upstream, a large file in a pipe.

gevent's sockets wait only where there is nothing to read, so a greenlet whose peer is quick never lets another one run.
Here all that is moved is counted, whoever moves it, and after PIECE_BYTES the loop turns once. That is before the next
read or write: an exception that breaks in there finds nothing half-done.
"""

import functools
from collections.abc import Callable
from typing import Any

import gevent.socket
import gevent.ssl
from gevent import get_hub, getcurrent
from gevent.hub import Waiter

from ..replacements import Put, part
from .threads import is_loop_thread

# Half a millisecond's work, against which a turn of the loop does not count.
PIECE_BYTES = 524_288
# A system call costs what moving so much does.
OPERATION_BYTES = 512

_moved = 0


def moved(size: int) -> None:
    """Runs on: any greenlet, any thread."""
    global _moved
    _moved += size if size > OPERATION_BYTES else OPERATION_BYTES


def before_more() -> None:
    """Somebody is about to move something. Switches when a piece is done."""
    global _moved
    if _moved >= PIECE_BYTES and is_loop_thread():
        _moved = 0
        turn()


def turn() -> None:
    """Let the loop ask its sockets, and run all that is ready. The hub itself has nobody to give way to.

    Runs on: the loop's thread.
    """
    hub: Any = get_hub()
    if getcurrent() is hub:
        return
    waiter: Any = Waiter(hub)
    # By a timer: what is handed to `run_callback` runs in the same turn, before any socket is asked.
    timer = hub.loop.timer(0.0)
    timer.start(waiter.switch, None)
    try:
        waiter.get()
    finally:
        timer.stop()
        timer.close()


@part("descriptors")
def install(put: Put) -> None:
    """Runs on: the main thread, after patching."""
    for name in ("recv", "recv_into", "send"):
        put(gevent.socket.socket, name, in_pieces(getattr(gevent.socket.socket, name)))
    put(gevent.ssl.SSLSocket, "read", in_pieces(gevent.ssl.SSLSocket.read))
    put(gevent.ssl.SSLSocket, "send", in_pieces(or_not_yet(gevent.ssl.SSLSocket.send)))


def in_pieces(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A method that returns what came, or how much was moved."""

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _moved >= PIECE_BYTES:
            before_more()
        found = plain(*args, **kwargs)
        moved(found if type(found) is int else len(found))
        return found

    return call


def or_not_yet(plain: Callable[..., int]) -> Callable[..., int]:
    """SSLSocket.send. One that does not block raises SSLWantWriteError where it would have to, as CPython's does:
    gevent's returns 0, and a caller that goes on until all is sent goes on for ever."""

    @functools.wraps(plain)
    def send(self: Any, data: Any, flags: int = 0, **timeout: Any) -> int:
        if self.timeout == 0.0 and flags == 0 and self._sslobj is not None:
            return int(self._sslobj.write(data))
        return plain(self, data, flags, **timeout)

    return send
