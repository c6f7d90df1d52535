"""The end of a connection whose client may still be sending: its bytes are read and dropped for a while.

Closed at once, the kernel would answer them with a reset, and that can destroy the last answer before the client has
read it (RFC 9112 9.6).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from .running import State
from .timeouts import Client
from .transport import Transport
from .wire import RECEIVE_BYTES

if TYPE_CHECKING:
    from .serving import Serving


class Watcher(Protocol):
    """gevent's watcher for reading."""

    def start(self, callback: Callable[[], None], /) -> Any: ...

    def stop(self) -> None: ...


class Closing(Client, Protocol):
    """A connection that has shut down its own side."""

    serving: "Serving"
    state: State
    reader: Watcher

    def on_readable(self) -> None: ...

    def begin_to_drain(self) -> None: ...

    def leave_to_parent(self) -> int: ...


def begin(connection: Closing) -> None:
    connection.serving.closed(connection)
    connection.state = State.LINGERING
    connection.reader.stop()
    connection.reader.start(connection.on_readable)
    connection.serving.timeouts.linger(connection)


def drop(sock: Transport) -> bool:
    """Drop what has come; return whether that was the end."""
    try:
        return not sock.recv(RECEIVE_BYTES)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the client was answered, and has left
