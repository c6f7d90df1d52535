"""A TLS client's connection before it has a protocol: the hub goes on with the handshake whenever something comes.

accepted ──handshake──> agreed: HTTP/2 where the client chose it (ALPN), else HTTP/1.1
    │
    └── too slow (GREENROOM_TLS_HANDSHAKE_TIMEOUT_SECONDS), or no TLS: closed; who speaks plain HTTP is told so
"""

import _socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import Peer, Transport
from .tls import TLSSocket

if TYPE_CHECKING:
    from ..listener import Listener
    from ..serving import Serving

READ, WRITE = 1, 2
MOST_HANDSHAKES = 8  # in one turn of the loop: a signature by RSA takes a millisecond
PLAIN_HTTP = "HTTP_REQUEST"  # OpenSSL's reason


class Handshake:
    """Runs on: hub; never waits."""

    __slots__ = ("agreed", "listener", "peer", "plain_came", "reader", "serving", "sock", "writer")

    def __init__(
        self,
        serving: "Serving",
        listener: "Listener",
        sock: TLSSocket,
        peer: Peer,
        agreed: Callable[["Handshake", str | None], None],
        plain_came: Callable[["Handshake", Transport], None],
    ) -> None:
        """`agreed` gets the protocol that was chosen, if any; `plain_came` a plain socket. Both own the socket then."""
        self.serving = serving
        self.listener = listener
        self.sock = sock
        self.peer = peer
        self.agreed = agreed
        self.plain_came = plain_came
        self.reader = serving.loop.io(sock.fileno(), READ)
        self.writer: Any = None
        self.reader.start(self.go_on)

    def go_on(self) -> None:
        """Something has come, or can be sent."""
        if not self.serving.handshakes.may_go_on():
            return  # the watcher comes again
        self._stop_writer()
        try:
            self.sock.handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            self.writer = self.serving.loop.io(self.sock.fileno(), WRITE)
            self.writer.start(self.go_on)
            return
        except OSError as exc:  # ssl.SSLError is one
            self.serving.log.debug("TLS with %s failed: %s", self.peer, exc)
            if getattr(exc, "reason", None) == PLAIN_HTTP:
                self._forget()
                self.plain_came(self, _socket.socket(fileno=self.sock.detach()))
            else:
                self.close()
            return
        except ValueError as exc:  # a callback for SNI may raise what it likes
            self.serving.log.debug("TLS with %s failed: %s", self.peer, exc)
            self.close()
            return
        self._forget()
        self.agreed(self, self.sock.selected_alpn_protocol())

    def _stop_writer(self) -> None:
        if self.writer is not None:
            self.writer.stop()
            self.writer.close()
            self.writer = None

    def _forget(self) -> None:
        self._stop_writer()
        self.reader.stop()
        self.reader.close()
        self.serving.closed(self)

    def close(self) -> None:
        """Close without TLS's goodbye: there is no session yet."""
        self._forget()
        self.sock.close()

    close_if_idle = close

    def begin_to_drain(self) -> None:
        """It may end its handshake: see Drain."""

    def leave_to_parent(self) -> int:
        return self.sock.fileno()
