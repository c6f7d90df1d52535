"""One listening socket: what comes through it, and when to accept."""

import socket
from typing import TYPE_CHECKING, Any

from gunicorn.http import wsgi

if TYPE_CHECKING:
    from .serving import Serving


class Listener:
    """One listening socket, and what every request that comes through it has in its environ."""

    def __init__(self, serving: "Serving", sock: socket.socket) -> None:
        self.serving = serving
        self.sock = sock
        # Asked now: after close() it would fail, and connections that were accepted before still need it.
        self.name = sock.getsockname()
        # Behind a unix socket SERVER_NAME is in the Host header, and under a SCRIPT_NAME paths are cut: gunicorn knows.
        self.is_plain = isinstance(self.name, tuple) and not serving.script_name
        self.environ = self._environ()
        self.watcher = serving.loop.io(sock.fileno(), 1)

    def _environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = wsgi.base_environ(self.serving.cfg)
        environ["wsgi.multithread"] = True
        environ["wsgi.url_scheme"] = self.serving.parser.scheme
        environ["SERVER_PROTOCOL"] = "HTTP/1.1"
        environ["SCRIPT_NAME"] = ""
        if self.is_plain:
            environ["SERVER_NAME"] = self.name[0]
            environ["SERVER_PORT"] = str(self.name[1])
        return environ

    def start(self) -> None:
        self.watcher.start(self.accept)

    def stop(self) -> None:
        self.watcher.stop()

    def accept(self) -> int:
        """Accept what waits in the kernel, a few at a time; returns how many."""
        for count in range(self.serving.accepts_per_turn):
            try:
                descriptor, peer = self.sock._accept()  # type: ignore[attr-defined]  # accept() would make a gevent socket
            except BlockingIOError:
                return count
            except OSError as exc:
                self.serving.log.warning("accept failed: %s", exc)
                return count
            self.serving.accepted(self, descriptor, peer)
        return self.serving.accepts_per_turn
