"""Serving without gunicorn: gevent's own WSGI server, one process, patched the same way.

For places where gunicorn can't run (Windows) and for a quick look. Same application, same settings where they apply.
"""

import logging
import signal
import sys
from pathlib import Path
from typing import Any

import gevent
import gevent.event
from gevent import socket
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from . import importing, offload
from .draining import Draining
from .settings import Settings

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve settings.wsgi_app until SIGTERM or Ctrl-C, then let running requests finish within the graceful timeout.

    The process must be patched already.
    """
    logging.basicConfig(
        level=settings.log_level.upper(), format="[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
    )
    stopping = gevent.event.Event()
    offload.install(settings)
    application = Draining(importing.load(settings.wsgi_app), stopping.is_set)
    offload.check(settings)
    # One pool for all addresses: the limit is on the process.
    connections = Pool(settings.worker_connections)
    addresses = [address.strip() for address in settings.bind.split(",")]
    servers = [_server(settings, address, application, connections) for address in addresses]
    for server, address in zip(servers, addresses, strict=True):
        server.start()
        logger.info("Listening at: %s", address)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopping.set)
    stopping.wait()
    logger.info("Stopping: %d connections open", len(connections))
    for server in servers:
        server.close()
    connections.join(timeout=settings.graceful_timeout_seconds)
    connections.kill(timeout=1)


def _server(settings: Settings, address: str, application: Any, connections: Pool) -> WSGIServer:
    return WSGIServer(
        _listener(address, settings.backlog),
        application,
        spawn=connections,
        log=sys.stdout if settings.access_log else None,
        error_log=logger,
        **_tls(settings),
    )


def _tls(settings: Settings) -> dict[str, Any]:
    return {"certfile": settings.tls_certificate, "keyfile": settings.tls_key} if settings.tls_certificate else {}


def _listener(address: str, backlog: int) -> socket.socket | tuple[str, int]:
    """Return WSGIServer's listener: (host, port), from which it makes a socket, or a unix socket that we made."""
    if not address.startswith("unix:"):
        return parse_bind(address)
    path = Path(address.removeprefix("unix:"))
    if path.is_socket():
        path.unlink()  # left by a server that was killed; one that still runs keeps its open socket
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


def parse_bind(address: str) -> tuple[str, int]:
    """`127.0.0.1:8000`, `[::1]:8000` or `:8000` (every address) as (host, port)."""
    host, _, port = address.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)
