"""TLS and HTTP/2: gunicorn's own path, with a greenlet for each connection and another for each request.

Used when TLS or cleartext HTTP/2 is configured in gunicorn; plain HTTP/1.1, as behind a proxy, never comes here.
What gunicorn's AsyncWorker does with a connection stays as it is. Added are

    a bound for the TLS handshake, and for a client that neither sends nor takes anything
    a greenlet and a contextvars.Context of its own for each request
    streams of one HTTP/2 connection side by side: gunicorn serves one after the other (four streams of 1 s: 4.1 s)
    draining

Admission does not count these requests.
"""

import contextlib
import contextvars
import select
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.lock import RLock
from gunicorn.http.errors import NoMoreData
from gunicorn.http2.connection import HTTP2ServerConnection
from gunicorn.http2.errors import HTTP2ConnectionError, HTTP2ErrorCode, HTTP2ProtocolError
from gunicorn.sock import ssl_context
from gunicorn.workers.base_async import AsyncWorker

from .connection import State
from .serving import Serving

if TYPE_CHECKING:
    from .listener import Listener


def is_needed(cfg: Any) -> bool:
    """Whether this configuration has connections that are not plain HTTP/1.1."""
    return bool(cfg.is_ssl) or ("h2" in cfg.http_protocols and cfg.http2_cleartext != "off")


class GunicornServing(Serving):
    """Serving, where a connection is gunicorn's."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.context: ssl.SSLContext | None = ssl_context(self.cfg) if self.cfg.is_ssl else None

    def accepted(self, listener: "Listener", descriptor: int, peer: Any) -> None:
        sock = gevent.socket.socket(fileno=descriptor)
        if isinstance(peer, tuple):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) >= self.settings.worker_connections:
            self.timeouts.make_room()
        connection: Any = GunicornConnection(self, listener, sock, peer)
        self.connections.add(connection)
        gevent.spawn(connection.run)


class GunicornConnection:
    """One client. To timeouts and drain it looks like the other kind of connection."""

    buffer = b""

    def __init__(self, serving: GunicornServing, listener: "Listener", sock: Any, peer: Any) -> None:
        self.serving = serving
        self.listener = listener
        self.sock = sock
        # The TLS layer takes the descriptor over from `sock`; this one stays ours to look at and to shut down.
        self.own = sock.dup()
        self.peer = peer
        self.state = State.READING
        self.running = 0
        self.close_http2: Callable[[], None] | None = None

    def run(self) -> None:
        """The connection's greenlet, from the handshake to the end."""
        settings = self.serving.settings
        try:
            if self.serving.context is not None:
                with gevent.Timeout(settings.tls_handshake_timeout_seconds, TimeoutError("TLS handshake")):
                    self.sock = self.serving.context.wrap_socket(
                        self.sock, server_side=True, suppress_ragged_eofs=self.serving.cfg.suppress_ragged_eofs
                    )
            self._became_idle()
            handler = Handler(self)
            handler.handle(handler, self.sock, self.peer)
        except OSError as exc:  # ssl.SSLError is one
            self.serving.log.debug("TLS with %s failed: %s", self.peer, exc)
        finally:
            self.state = State.CLOSED
            self.sock.close()
            self.own.close()
            self.serving.closed(self)  # type: ignore[arg-type]

    def _became_idle(self) -> None:
        self.state = State.IDLE
        self.serving.timeouts.became_idle(self)  # type: ignore[arg-type]

    def request_begins(self, key: Any, request: Any) -> None:
        self.running += 1
        self.state = State.RUNNING
        self.serving.timeouts.forget(self)  # type: ignore[arg-type]
        self.serving.in_flight[key] = request

    def request_ends(self, key: Any) -> None:
        self.serving.in_flight.pop(key, None)
        self.running -= 1
        if not self.running and self.state == State.RUNNING:
            self._became_idle()
            if self.close_http2 is not None and self.serving.is_stopping():
                self.close()

    def on_readable(self) -> None:
        """Look whether the client's next request has come; if so its greenlet is about to take it. Runs on: hub."""
        poll = _real_poll()
        poll.register(self.own.fileno(), select.POLLIN)
        if poll.poll(0):
            self.state = State.READING
            self.serving.timeouts.forget(self)  # type: ignore[arg-type]

    def close_if_idle(self) -> None:
        if self.state == State.IDLE:
            self.on_readable()
        if self.state == State.IDLE:
            self.close()

    def close(self) -> None:
        """End the connection's greenlet, which waits for the client. Runs on: any greenlet."""
        self.serving.timeouts.forget(self)  # type: ignore[arg-type]
        if self.close_http2 is not None:
            gevent.spawn(self._say_goodbye, self.close_http2)
        else:
            self._shut()

    def _say_goodbye(self, close_http2: Callable[[], None]) -> None:
        close_http2()
        self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # the client was quicker
            self.own.shutdown(socket.SHUT_RDWR)


class Handler(AsyncWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's way of handling one connection, on behalf of a worker: what is not changed here is the worker's."""

    def __init__(self, connection: GunicornConnection) -> None:
        # Not the base's: this is not another worker.
        self.connection = connection
        self.worker = connection.serving.worker
        self.cfg = self.worker.cfg
        self.log = self.worker.log
        self.wsgi = self.worker.wsgi
        self.max_requests = self.worker.max_requests

    @property
    def alive(self) -> bool:
        return bool(self.worker.alive)

    @property
    def nr(self) -> int:
        return int(self.worker.nr)

    @nr.setter
    def nr(self, _: int) -> None:
        self.worker.request_started()

    def getsockname(self) -> Any:
        """In place of the listener, which may be closed by now."""
        return self.connection.listener.name

    def timeout_ctx(self) -> Any:
        return gevent.Timeout(self.cfg.keepalive, False)  # type: ignore[arg-type]  # the stubs miss it

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        settings = self.connection.serving.settings
        client.settimeout(max(settings.body_timeout_seconds, settings.send_timeout_seconds))
        super().handle(listener, client, addr)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        self.connection.request_begins(self.connection, req)
        try:
            return run_apart(super().handle_request, listener_name, req, sock, addr)
        finally:
            self.connection.request_ends(self.connection)

    def handle_http2(self, listener: Any, client: Any, addr: Any, preface: bytes = b"", upgrade: Any = None) -> None:
        """gunicorn's loop, but each stream gets a greenlet, and this one only reads."""
        http2 = GreenHTTP2Connection(self.cfg, client, addr)
        streams: set[gevent.Greenlet[..., None]] = set()

        def serve(request: Any) -> None:
            key = (self.connection, request.stream.stream_id)
            self.connection.request_begins(key, request)
            stream = gevent.spawn(self._serve_stream, key, request, client, addr, http2)
            streams.add(stream)
            stream.rawlink(streams.discard)

        try:
            if upgrade is not None:
                upgraded = http2.initiate_upgrade(*upgrade)
            else:
                upgraded = None
                http2.initiate_connection()
            if preface:
                http2.receive_data(preface)
            self.connection.close_http2 = http2.close
            if upgraded is not None:
                serve(upgraded)
            while not http2.is_closed:
                for request in http2.receive_data():
                    serve(request)
        except (NoMoreData, HTTP2ConnectionError, HTTP2ProtocolError, OSError) as exc:
            self.log.debug("HTTP/2 connection closed: %s", exc)
        finally:
            http2.is_gone = True
            http2.something_came()
            gevent.joinall(list(streams), timeout=self.cfg.graceful_timeout)

    def _serve_stream(self, key: Any, request: Any, client: Any, addr: Any, http2: Any) -> None:
        try:
            contextvars.Context().run(self._serve_http2_stream, self.getsockname(), request, client, addr, http2)
        finally:
            self.connection.request_ends(key)


class GreenHTTP2Connection(HTTP2ServerConnection):  # type: ignore[misc]  # gunicorn has no types
    """An HTTP/2 connection that several greenlets use: one reads, and wakes whoever waits for what it read.

    Private to gunicorn: `_send_pending_data`, `_wait_for_flow_control_window`, and that a body waits in pump().
    """

    _closed: bool

    def __init__(self, cfg: Any, sock: Any, addr: Any) -> None:
        super().__init__(cfg, sock, addr)
        self.is_gone = False  # the reader has ended
        self._came = Event()
        self._writing = RLock()

    def something_came(self) -> None:
        came, self._came = self._came, Event()
        came.set()

    def receive_data(self, data: bytes | None = None) -> Any:
        """The reader's. Runs on: the connection's greenlet."""
        try:
            return super().receive_data(data)
        finally:
            self.something_came()

    def pump(self, stream_id: int | None = None) -> None:
        """Wait until something came. Runs on: a stream's greenlet, whose application reads its body."""
        if not self.is_gone and not self._came.wait(self.stream_timeout) and stream_id is not None:
            self.abort_stream(stream_id, HTTP2ErrorCode.CANCEL)
        if self.is_gone and not self._closed:
            self._closed = True

    def _wait_for_flow_control_window(self, stream_id: int, deadline: float | None = None) -> int:
        """As gunicorn's: the window, 0 when the deadline passed, -1 when the stream or the connection is gone."""
        timeout = self.stream_timeout if deadline is not None else None
        with gevent.Timeout(timeout, False):  # type: ignore[arg-type]  # the stubs miss it
            while True:
                stream = self.streams.get(stream_id)
                if self._closed or self.is_gone or stream is None or stream.state.name == "CLOSED":
                    return -1
                available = int(self.h2_conn.local_flow_control_window(stream_id))
                if available > 0:
                    return available
                self._came.wait()
        return 0

    def _send_pending_data(self) -> None:
        """In the order in which the frames were made, whichever greenlet made them."""
        with self._writing:
            super()._send_pending_data()


def run_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` in a greenlet and a Context of its own; returns or raises what it does."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((contextvars.Context().run(function, *arguments), None))
        except BaseException as exc:  # handed on below, whatever it is
            outcome.extend((None, exc))

    gevent.spawn(run).join()
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _real_poll() -> Any:
    """gevent's poll would switch."""
    return monkey.get_original("select", "poll")()
