"""One listening socket: what comes through it, and when to accept."""

import errno
import socket
from typing import TYPE_CHECKING, Any

from gunicorn.http import wsgi

from ..timers import Timer, called
from .balance import STEP_SECONDS, Line, Turn

if TYPE_CHECKING:
    from .serving import Serving

# No descriptors or memory left: the next attempt can wait, and the event would come again in each turn of the loop.
PAUSE_SECONDS = 0.1
# At the limit of connections: until one of them ends.
FULL_SECONDS = 0.005
# In one turn of the loop. With siblings fewer, for they may be back before the next turn; but not while requests stand
# in line here: most of what comes then is turned away, and that must keep up.
MOST_ACCEPTS = 64
MOST_ACCEPTS_WITH_SIBLINGS = 16


class Listener:
    """A listening socket, shared with the sibling workers. `turn` None: there are none.

    Runs on: hub.
    """

    def __init__(self, serving: "Serving", sock: socket.socket, line: Line, turn: Turn | None) -> None:
        self.serving = serving
        self.sock = sock
        self.line = line
        self.turn = turn
        # Asked now: after close() it would fail, and connections that were accepted before still need it.
        self.name = sock.getsockname()
        self.environ = self._environ()
        self.watcher = serving.loop.io(sock.fileno(), 1)
        self._pause = Timer(serving.loop, STEP_SECONDS, "leave a connection to others")
        self._full_pause = Timer(serving.loop, FULL_SECONDS, "at the limit of connections")
        self._long_pause = Timer(serving.loop, PAUSE_SECONDS, "no room to accept")

    def _environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = wsgi.base_environ(self.serving.cfg)
        environ["wsgi.multithread"] = True
        environ["wsgi.url_scheme"] = self.serving.parser.scheme
        environ["SERVER_PROTOCOL"] = "HTTP/1.1"
        environ["SCRIPT_NAME"] = self.serving.parser.script_name
        if isinstance(self.name, tuple):  # behind a unix socket the Host header says it
            environ["SERVER_NAME"] = self.name[0]
            environ["SERVER_PORT"] = str(self.name[1])
        return environ

    def start(self) -> None:
        self.watcher.start(self.on_acceptable)

    def on_acceptable(self) -> None:
        """Connections wait. Take one, or stand back for a moment to leave it to a sibling."""
        called["connections wait to be accepted"] += 1
        if self.serving.is_full():
            self._stand_back(self._full_pause)
        elif self.turn is not None and not self.turn.has_come():
            self._stand_back(self._pause)
        else:
            self.accept()

    def _stand_back(self, pause: Timer) -> None:
        self.watcher.stop()
        pause.start(self.start)

    def accept(self) -> int:
        """Accept what waits in the kernel, a few at a time; returns how many."""
        count = 0
        is_shared = self.serving.has_siblings and not self.serving.admission.waiting
        most = MOST_ACCEPTS_WITH_SIBLINGS if is_shared else MOST_ACCEPTS
        while count < most and not self.serving.is_full() and (not count or self._may_go_on()):
            try:
                descriptor, peer = self.sock._accept()  # type: ignore[attr-defined]  # accept() would make a gevent socket
            except (BlockingIOError, ConnectionAbortedError):
                break
            except OSError as exc:
                self.serving.log.warning("accept failed: %s", exc)
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._stand_back(self._long_pause)
                break
            count += 1
            # Published first: the request may come with the connection, and runs at once.
            self.line.accepted += 1
            self.line.connections = len(self.serving.connections) + 1
            if self.serving.sharing is not None:
                self.serving.sharing.accepted()
            self.serving.accepted(self, descriptor, peer)
        return count

    def _may_go_on(self) -> bool:
        """Whether to accept another connection before the loop turns again.

        With siblings only while it is still this worker's turn, so that a free worker takes the next one. One a turn
        would be too few: under overload turns are long, and the queue would move to the kernel, where nobody knows the
        age of a request and nobody turns it away before its client gives up.
        """
        return not self.serving.has_siblings or self.turn is None or self.turn.has_come()

    def close(self) -> None:
        """Accept nothing any more; what waits in the kernel is left to whoever else holds the socket."""
        for watcher in (self.watcher, self._pause, self._full_pause, self._long_pause):
            watcher.stop()
            watcher.close()
        self.sock.close()
