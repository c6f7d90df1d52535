"""TLS, HTTP/2 and the uwsgi protocol: gunicorn's own path, a greenlet for each connection and one for each request.

Used when one of them is configured in gunicorn; plain HTTP/1.1, as behind a proxy, never comes here. What gunicorn's
AsyncWorker does with a connection stays as it is. Added are

    a bound for the TLS handshake, for heads and bodies, and for a client that neither sends nor takes anything
    what HTTP/1.1 demands of a head, as for plain connections
    admission, a greenlet and a contextvars.Context of its own for each request
    streams of one HTTP/2 connection side by side: gunicorn serves one after the other (four streams of 1 s: 4.1 s)
    an answer for whatever an application raises, and no traceback for what clients do
    requests end when their client hangs up, or resets their stream
    an answer from here when a request ends before its application has answered (see ending)
    sockets that applications take (see takeover)
    draining
"""

import contextlib
import os
import select
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gevent
import gevent.ssl
from gevent import monkey
from gevent._hub_primitives import wait_on_socket, wait_on_watcher
from gevent.event import Event
from gevent.lock import RLock
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import NoMoreData
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http2.connection import HTTP2ServerConnection
from gunicorn.http2.errors import HTTP2ConnectionError, HTTP2Error, HTTP2ErrorCode, HTTP2StreamError
from gunicorn.http2.stream import StreamState
from gunicorn.sock import ssl_context
from gunicorn.workers.base_async import ALREADY_HANDLED, AsyncWorker

from .. import clock
from ..errors import BudgetSpent
from ..in_flight import BARE, CLIENT_LEFT, CURRENT, FOREVER, OWN, SHIELD, Record, Wait
from ..insight.account import Account
from ..waits.in_loop import for_any_thread
from ..waits.threads import is_loop_thread
from . import log_redaction
from .connection import DISCARD_BYTES, State
from .ending import LATE, ErrorPage, clean_up_begins, error_answer, fitting
from .fair import PIECE_BYTES, Frames, Piece, fair, give_way
from .hangups import is_consequence
from .head import demand
from .progress import wait_for_room
from .proxied import ProxiedRequest
from .response import announces_event_stream, answer_begins
from .serving import SHED_ANSWERS, SHED_BODY, SHED_HEADERS, Serving
from .takeover import ClientsSocket
from .timeouts import LINGER_SECONDS
from .wire import (
    RECEIVE_BYTES,
    SLOWEST_BODY_BYTES_PER_SECOND,
    BodyCutShort,
    BodyTooSlow,
    ClientLeft,
    ClientTooSlow,
    NotYet,
)

try:
    from h2.exceptions import H2Error
except ImportError:  # without it nobody speaks HTTP/2 here

    class H2Error(Exception):  # type: ignore[no-redef]
        pass


if TYPE_CHECKING:
    from .listener import Listener

# How long a client may go on sending the body of a request that was turned away.
DISCARD_SECONDS = 1.0
READ = 1  # of the event loop's watchers
# Set when the other side has ended, whatever it sent before. Linux has it; elsewhere nobody is seen to leave here.
ENDED = getattr(select, "POLLRDHUP", 0)
# TLS says goodbye in one record of 19 to 31 bytes; more than that is another request.
GOODBYE_BYTES = 64
LATE_BODY = f"{LATE}\n".encode()
LATE_HEADERS = [("content-type", "text/plain"), ("content-length", str(len(LATE_BODY)))]


def is_needed(cfg: Any) -> bool:
    """Whether this configuration has connections that are not plain HTTP/1.1."""
    has_http2 = "h2" in cfg.http_protocols and cfg.http2_cleartext != "off"
    return bool(cfg.is_ssl) or has_http2 or cfg.protocol == "uwsgi"


class Call:
    """One request, from asking for admission to its end. `work` answers it; `shed` says that it was turned away.

    `over` is set when the connection can go on, which may be while the application still runs.
    """

    is_peer_trusted = False  # how long it may wait in line is its path's budget; what a proxy asks for counts later

    def __init__(self, work: Callable[[], Any], exchange: "Exchange") -> None:
        self.arrived = clock.now()
        self.work = work
        self.exchange = exchange
        self.is_shed = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.over = Event()

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as exc:  # handed on to whoever waits, whatever it is
            self.error = exc

    def drop(self, page: tuple[int, str, str] | None) -> None:
        """It will not run; `page` is what its client gets."""
        self.exchange.is_dropped, self.exchange.page = True, page
        self.over.set()

    def shed(self) -> None:
        self.is_shed = True
        self.end()

    def end(self) -> None:
        self.exchange.end()
        self.over.set()


class GunicornServing(Serving):
    """Serving, where a connection is gunicorn's."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        RequestParser.mesg_class = ProxiedRequest
        self.timeouts.dismiss_slow = GunicornConnection.dismiss_if_slow  # type: ignore[assignment]
        self.context: ssl.SSLContext | None = ssl_context(self.cfg) if self.cfg.is_ssl else None
        if self.context is not None:
            self.context.sslsocket_class = TLSClientSocket
        self.records: set[Record] = set()  # of the requests that run

    def accepted(self, listener: "Listener", descriptor: int, peer: Any) -> None:
        sock = ClientSocket(fileno=descriptor)
        if isinstance(peer, tuple):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) >= self.most_connections:
            self.timeouts.make_room()
        connection: Any = GunicornConnection(self, listener, sock, peer)
        self.connections.add(connection)
        gevent.spawn(connection.run)

    def admit(self, exchange: "Exchange", work: Callable[[], Any]) -> Call:
        """Run `work` when there is room for it, or not at all; returns when that is decided, and done or dropped.

        Raises what `work` raises. Runs on: a connection's greenlet; switches.
        """
        call: Any = Call(work, exchange)
        exchange.call = call
        self.loop.run_callback(self.offer, call, exchange.request)  # admission is the hub's
        call.over.wait()
        if call.error is not None and not exchange.is_dropped:
            raise call.error
        return call  # type: ignore[no-any-return]

    def _run_in_greenlet(self, call: Any, request: Any) -> None:
        self.greenlets.start(self.gate, call, request)

    def _run(self, call: Any, request: Any) -> None:
        insight = self.insight
        record: Any = Record(call.arrived) if insight is None else insight.begin(call.arrived)
        self.records.add(record)
        CURRENT.set(record)
        try:
            call.run()
        finally:
            if record.deadline != FOREVER and record.is_spent():
                self._report_spent(record, request)
            record.finish()
            if insight is not None:
                insight.finish(record)
            record.environ = record.answer = record.on_end = None
            self.records.discard(record)
            taken = self.taken.pop(record, None)
            if taken is not None and taken.lost is not None:
                self.log.info("%s: its client has left: %s", log_redaction.asked(request), taken.lost)
            call.end()

    def running_records(self) -> list[Record]:
        return list(self.records)

    def _turn_away(self, call: Any, request: Any, is_spent: bool) -> None:
        if is_spent:
            self._count_spent()
            call.drop((504, "Gateway Timeout", "The answer did not come in time."))
            return
        if self.insight is not None:
            self.insight.ring.shed()
        call.shed()

    def left_line(self, call: Any) -> None:
        """The client of a call that may stand in line has left. Runs on: hub, any greenlet."""
        if self._ends(call.exchange.request.method) and self.admission.leave(call):
            if self.insight is not None:
                self.insight.ring.shed()
            call.drop(None)


class HeadTooSlow(Exception):
    """Raised where a connection's greenlet waits for a head. No OSError: for gunicorn those are lost connections."""


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
        self.greenlet: Any = None
        self.patience = 0.0  # how long the body of the running request may still keep us waiting
        self.exchanges: dict[Any, Exchange] = {}  # those that run, as `request_begins` knows them
        self.is_client_gone = False
        self.is_taken = False  # by an application
        self.piece = Piece()
        self.watcher = serving.loop.io(self.own.fileno(), READ)
        self.wire = SimpleNamespace(sock=self.own)  # where Timeouts looks for clients that have gone

    def run(self) -> None:
        """The connection's greenlet, from the handshake to the end."""
        settings = self.serving.settings
        self.greenlet = gevent.getcurrent()
        try:
            if self.serving.context is not None:
                with gevent.Timeout(settings.tls_handshake_timeout_seconds, TimeoutError("TLS handshake")):
                    self.sock = self.serving.context.wrap_socket(
                        self.sock, server_side=True, suppress_ragged_eofs=self.serving.cfg.suppress_ragged_eofs
                    )
            self.sock.connection = self
            self._became_idle()
            handler = Handler(self)
            handler.handle(handler, self.sock, self.peer)
        except OSError as exc:  # ssl.SSLError is one
            self.serving.log.debug("TLS with %s failed: %s", self.peer, exc)
        finally:
            self.look_no_more()
            self.state = State.CLOSED
            self.watcher.close()
            self.sock.close()
            self.own.close()
            self.serving.closed(self)  # type: ignore[arg-type]

    def _became_idle(self) -> None:
        self.state = State.IDLE
        self.serving.timeouts.became_idle(self)  # type: ignore[arg-type]

    def _head_began(self) -> None:
        if self.state == State.IDLE:
            self.state = State.READING
            self.serving.timeouts.head_started(self)  # type: ignore[arg-type]

    def receive(self, receive: Callable[[int], bytes], size: int) -> bytes:
        """What `receive` gets of a head or a body, bounded in time. Raises BodyTooSlow. Runs on: any; switches."""
        if self.close_http2 is not None or self.is_taken:
            return receive(size)
        if self.state != State.RUNNING:
            data = receive(size)
            self._head_began()
            return data
        exchange = self.exchanges.get(self)
        if exchange is None:
            return receive(size)
        began = clock.now()
        try:
            data = self._receive_body(receive, size, exchange)
        except (ClientLeft, ClientTooSlow) as exc:
            exchange.body_failed(exc)
            raise
        left = self.patience - (clock.now() - began)
        self.patience = min(
            self.serving.settings.body_timeout_seconds, left + len(data) / SLOWEST_BODY_BYTES_PER_SECOND
        )
        return data

    def _receive_body(self, receive: Callable[[int], bytes], size: int, exchange: "Exchange") -> bytes:
        exchange.waits_for_body = True
        try:
            with (
                gevent.Timeout(max(0.0, self.patience), BodyTooSlow("the rest of the body did not come in time")),
                Wait("client", "body", OWN),
            ):
                data = receive(size)
        except BudgetSpent as exc:
            raise BodyTooSlow(f"the rest of the body did not come in time: {exc}") from exc
        except (ClientLeft, ClientTooSlow):
            raise
        except OSError as exc:
            raise ClientLeft(f"the client left before its body was complete: {exc}") from exc
        finally:
            exchange.waits_for_body = False
        if not data:  # gunicorn would hand the application the part that came, as if it were the whole
            raise BodyCutShort("the client left before its body was complete")
        return data

    def broke(self) -> None:
        """Something was sent in part: end the connection. Runs on: any greenlet."""
        self._shut()

    def linger(self) -> None:
        """Let a client that may still be sending read its last answer. Runs on: the connection's greenlet."""
        with contextlib.suppress(OSError), gevent.Timeout(LINGER_SECONDS, False):  # type: ignore[arg-type]
            self.own.shutdown(socket.SHUT_WR)
            while self.own.recv(RECEIVE_BYTES):
                pass

    def became_http2(self, close: Callable[[], None]) -> None:
        """What comes from now on are frames, and not all of them are requests."""
        self.close_http2 = close
        if not self.running:
            self._became_idle()

    def request_begins(self, key: Any, request: Any, exchange: "Exchange") -> None:
        self.running += 1
        self.exchanges[key] = exchange
        if self.close_http2 is None:  # else there is somebody who reads
            self.watcher.start(self._look_while_busy)
        self.state = State.RUNNING
        self.patience = self.serving.settings.body_timeout_seconds
        self.serving.timeouts.forget(self)  # type: ignore[arg-type]
        self.serving.in_flight[key] = request

    def request_answered(self, key: Any) -> None:
        """The connection can go on; the application may still run."""
        self.exchanges.pop(key, None)
        self.look_no_more()
        self.running -= 1
        if not self.running and self.state == State.RUNNING:
            self._became_idle()
            if self.close_http2 is not None and self.serving.is_stopping():
                self.close()

    def _look_while_busy(self) -> None:
        """Something came that the running request may not want: a body, the next request, or the end. Runs on: hub."""
        poll = _real_poll()
        poll.register(self.own.fileno(), select.POLLIN | ENDED)
        events = poll.poll(0)
        if not events:
            return  # the application has read it
        self.watcher.stop()  # the event is level-triggered: it would come again in every turn
        if events[0][1] & (ENDED | select.POLLHUP | select.POLLERR):
            self.client_has_left()
        else:
            self.serving.timeouts.deaf.add(self)  # type: ignore[arg-type]

    def look_no_more(self) -> None:
        if self.state != State.CLOSED:
            self.watcher.stop()
        self.serving.timeouts.deaf.discard(self)

    def client_has_left(self) -> None:
        """End the requests that run, unless the client has sent more and only ended its side. Runs on: hub, any."""
        self.is_client_gone = True
        if self.close_http2 is None and self._has_sent_more():
            return
        for exchange in list(self.exchanges.values()):
            exchange.client_has_left()

    def _has_sent_more(self) -> bool:
        """Whether there is more than the running request: read by gunicorn, read by TLS, or still in the kernel."""
        if any(exchange.request.unreader.buf.getvalue() for exchange in self.exchanges.values()):
            return True
        if isinstance(self.sock, gevent.ssl.SSLSocket) and self.sock.pending():
            return True
        try:
            return len(_peek(self.own)) > GOODBYE_BYTES
        except OSError:
            return False  # it was reset

    def on_readable(self) -> None:
        """Look whether the client's next request has come; if so its greenlet is about to take it. Runs on: hub."""
        poll = _real_poll()
        poll.register(self.own.fileno(), select.POLLIN)
        if poll.poll(0):
            self._head_began()

    def dismiss_if_slow(self) -> None:
        """Refuse a head that took too long, unless its greenlet takes the rest in this turn. Runs on: hub."""
        self.serving.loop.run_callback(self._give_up)

    def _give_up(self) -> None:
        if self.state != State.READING:
            return
        if self.close_http2 is None:
            self.greenlet.throw(HeadTooSlow("The request did not come in time."))
        else:
            self.close()

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
        with contextlib.suppress(HTTP2Error, H2Error, OSError):  # the client was quicker
            close_http2()
        self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # the client was quicker
            self.own.shutdown(socket.SHUT_RDWR)


class Bounded:
    """gunicorn reads from it; its connection says how long."""

    connection: "GunicornConnection | None" = None
    is_broken = False  # see Wire

    def _wait(self, watcher: Any, timeout_exc: Any = None) -> None:
        """As gevent has it: the end of a request must not shut down the client's own socket.

        A client that takes an answer slowly is borne with as over plain HTTP/1.1.
        """
        connection = self.connection
        if connection is not None and not connection.is_taken and watcher is self._write_event:  # type: ignore[attr-defined]
            if not wait_for_room(self, connection.serving.settings.send_timeout_seconds, partial(_waits_for, watcher)):
                raise TimeoutError("timed out")
        elif is_loop_thread():
            wait_on_socket(self, watcher, timeout_exc)  # type: ignore[arg-type]  # a mix-in of sockets
        else:
            super()._wait(watcher, timeout_exc)  # type: ignore[misc]  # the socket's

    @for_any_thread
    def recv(self, size: int, *flags: int) -> bytes:
        plain: Callable[..., bytes] = super().recv  # type: ignore[misc]  # the socket's
        connection = self.connection
        if connection is None:
            return plain(size, *flags)
        data = connection.receive(plain, size)
        if not connection.is_taken:
            connection.piece.did(len(data))
        return data

    @for_any_thread
    def sendall(self, data: Any, *flags: int) -> None:
        if self.connection is None or self.connection.is_taken:
            plain: Callable[..., None] = super().sendall  # type: ignore[misc]  # the socket's
            plain(data, *flags)
            return
        if self.is_broken:
            raise ClientLeft("the connection ends: what was sent before did not get through")
        send: Callable[..., int] = super().send  # type: ignore[misc]  # the socket's
        rest = memoryview(data).cast("B")
        try:
            while rest:
                sent = send(rest[:PIECE_BYTES], *flags)
                rest = rest[sent:]
                self.connection.piece.did(sent)
        except BaseException as exc:  # also what an application's own timeouts throw in
            # A record of TLS, or a frame, may be on its way in part: nothing can come behind it.
            self.is_broken = True
            self.connection.broke()
            if not isinstance(exc, OSError):
                raise
            if isinstance(exc, TimeoutError):
                raise ClientTooSlow("the client did not take the answer in time") from exc
            raise ClientLeft(f"the client left before its answer was complete: {exc}") from exc


def _waits_for(watcher: Any, seconds: float) -> bool:
    try:
        wait_on_watcher(watcher, seconds, NotYet())
    except NotYet:
        return False
    return True


class ClientSocket(Bounded, gevent.socket.socket):
    pass


class TLSClientSocket(Bounded, gevent.ssl.SSLSocket):  # type: ignore[misc]  # the stubs have `recv` as an attribute
    pass


class Handler(AsyncWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's way of handling one connection, on behalf of a worker: what is not changed here is the worker's."""

    def __init__(self, connection: GunicornConnection) -> None:
        # Not the base's: this is not another worker.
        self.connection = connection
        self.worker = connection.serving.worker
        self.cfg = self.worker.cfg
        self.log: Any = log_redaction.ShownLog(self.worker.log)
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
        """How long to wait for the next request: Timeouts knows, and tells idle connections from slow heads."""
        return contextlib.nullcontext()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if not isinstance(exc, HeadTooSlow):
            super().handle_error(req, ErrorPage(client.sendall, req), addr, exc)
            return
        with contextlib.suppress(OSError):  # the client has left meanwhile
            client.sendall(error_answer(408, "Request Timeout", str(exc)))

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        client.settimeout(self._longest_seconds())
        super().handle(listener, client, addr)

    def _longest_seconds(self) -> float:
        settings = self.connection.serving.settings
        return float(max(settings.body_timeout_seconds, settings.send_timeout_seconds))

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Answer one request of HTTP/1. Raises StopIteration to say that the connection is to be closed."""
        connection = self.connection
        if isinstance(req, Request):
            demand(req, allows_no_host=connection.serving.settings.allow_no_host)
            if isinstance(req.body.reader, ChunkedReader):
                req.body.reader.parser = fair(req.body.reader.parser, connection.piece)
        exchange = Exchange(connection, req, connection)
        handler = Handler(connection)  # for this request alone: gunicorn takes the application from it
        handler.wsgi = exchange
        handler.log = exchange
        connection.request_begins(connection, req, exchange)
        try:
            call = connection.serving.admit(
                exchange, lambda: super(Handler, handler).handle_request(listener_name, req, sock, addr)
            )
            if call.is_shed:
                self._turn_away(req, sock)
        except Over as exc:
            raise StopIteration from exc
        except (ClientLeft, ClientTooSlow) as exc:
            self.log.info("%s: %s", log_redaction.asked(req), exc)
            raise StopIteration from exc
        taken = exchange.taken
        if taken is not None and not taken.is_used:  # it has only looked, and answered as usual
            connection.is_taken = False
            sock.settimeout(self._longest_seconds())
        elif taken is not None:
            raise StopIteration
        if exchange.is_dropped:
            if exchange.page:
                with contextlib.suppress(OSError):  # the client has left, or takes nothing
                    sock.sendall(fitting(error_answer(*exchange.page), req))
                    connection.linger()
            raise StopIteration

    def _turn_away(self, req: Any, sock: Any) -> None:
        is_kept = not req.should_close() and bool(self.alive) and bool(self.cfg.keepalive) and self._discard(req)
        sock.sendall(SHED_ANSWERS[is_kept, req.method == "HEAD"])
        if not is_kept:
            raise StopIteration

    @staticmethod
    def _discard(req: Any) -> bool:
        """Whether the body of a request has come and can be thrown away."""
        reader = req.body.reader
        if not isinstance(reader, LengthReader) or reader.length > DISCARD_BYTES:
            return False
        with gevent.Timeout(DISCARD_SECONDS, False):  # type: ignore[arg-type]  # the stubs miss it
            while reader.length:
                if not req.body.read(DISCARD_BYTES):
                    return False
            return True
        return False

    def handle_http2(self, listener: Any, client: Any, addr: Any, preface: bytes = b"", upgrade: Any = None) -> None:
        """gunicorn's loop, but each stream gets a greenlet, and this one only reads."""
        http2 = GreenHTTP2Connection(self.cfg, client, addr, self._stream_was_reset)
        streams: set[gevent.Greenlet[..., None]] = set()

        def serve(request: Any) -> None:
            key = (self.connection, request.stream.stream_id)
            exchange = Exchange(self.connection, request, key, request.stream.stream_id)
            exchange.http2 = http2
            self.connection.request_begins(key, request, exchange)
            stream = gevent.spawn(self._serve_stream, exchange, client, addr, http2)
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
            self.connection.became_http2(http2.close)
            if upgraded is not None:
                serve(upgraded)
            while not http2.is_closed:
                for request in http2.receive_data():
                    serve(request)
        except (NoMoreData, HTTP2Error, H2Error, OSError) as exc:
            self.log.debug("HTTP/2 connection closed: %s", exc)
        finally:
            http2.is_gone = True
            http2.something_came()
            self.connection.client_has_left()
            gevent.joinall(list(streams), timeout=self.cfg.graceful_timeout)

    def _stream_was_reset(self, stream_id: int) -> None:
        exchange = self.connection.exchanges.get((self.connection, stream_id))
        if exchange is not None:
            exchange.client_has_left()

    def _serve_stream(self, exchange: "Exchange", client: Any, addr: Any, http2: Any) -> None:
        request = exchange.request
        stream_id = request.stream.stream_id
        handler = Handler(self.connection)
        handler.wsgi = exchange
        handler.log = exchange
        try:
            call = self.connection.serving.admit(
                exchange,
                lambda: handler._serve_http2_stream(self.getsockname(), request, client, addr, http2),
            )
            if call.is_shed:
                body = None if request.method == "HEAD" else SHED_BODY
                http2.send_response(stream_id, 503, [(name.lower(), value) for name, value in SHED_HEADERS], body)
                http2.cleanup_stream(stream_id)
            elif exchange.is_dropped:
                if exchange.page:
                    body = None if request.method == "HEAD" else LATE_BODY
                    http2.send_response(stream_id, exchange.page[0], LATE_HEADERS, body)
                http2.cleanup_stream(stream_id)
        except (HTTP2Error, H2Error, OSError) as exc:
            # Nobody is there, or the client has broken the rules: its connection is closed for that.
            self.log.debug("HTTP/2 stream closed: %s", exc)


class Over(ConnectionError):
    """Tells gunicorn that nobody is to be answered; all has been said."""


class Failed(Exception):
    """An application raised what gunicorn does not take for a failed request; it is the cause of this."""


class Exchange:
    """The application, as gunicorn calls it for one request: what it raises is its own, what the client does is not.

    gunicorn closes without an answer when an application raises an OSError, and logs a traceback when a client is slow;
    SystemExit, GreenletExit and the like leave a stream of HTTP/2 without an answer. For gunicorn it is the log, too:
    of what has been answered here there is a line already. `page` is what the connection's greenlet is to answer.
    """

    def __init__(self, connection: "GunicornConnection", request: Any, key: Any, stream_id: int | None = None) -> None:
        self.connection = connection
        self.request = request
        self.key = key
        self.stream_id = stream_id  # None where there are no streams
        self.log = log_redaction.ShownLog(connection.serving.log)
        self.http2: Any = None  # the connection, where there are streams
        self.call: Call | None = None
        self.record: Record | None = None
        self.response: Any = None
        self.taken: ClientsSocket | None = None
        self.page: tuple[int, str, str] | None = None
        self.is_client_gone = False
        self.is_dropped = False
        self.is_answered = False
        self.waits_for_body = False
        self._unclaimed = [None]

    # --- the log of gunicorn's code

    def access(self, response: Any, request: Any, environ: dict[str, Any], took: timedelta) -> None:
        if not self.is_dropped:
            log_redaction.access(self.connection.serving.log, response, request, environ, took)

    def exception(self, message: str, *values: Any) -> None:
        """gunicorn's tracebacks, of errors that are somebody's."""
        exc = sys.exc_info()[1]
        if exc is not None and (isinstance(exc, ClientLeft | ClientTooSlow) or self.is_closed_by_client(exc)):
            self.connection.serving.log.info("%s: %s", log_redaction.asked(self.request), CLIENT_LEFT)
        else:
            self.log.exception(message, *values)

    def is_closed_by_client(self, exc: BaseException) -> bool:
        """Whether `exc` only says that there is no stream, or no connection, any more."""
        if self.http2 is None or not isinstance(exc, HTTP2Error | H2Error):
            return False
        stream = self.http2.streams.get(self.stream_id)
        return self.http2.is_closed or self.http2.is_gone or stream is None or stream.state is StreamState.CLOSED

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    # --- who answers

    @property
    def is_head_sent(self) -> bool:
        return not self._unclaimed and not self.is_dropped

    def _is_used_as_websocket(self) -> bool:
        return self.taken is not None and self.taken.is_used and self.taken.is_websocket

    def claim(self) -> bool:
        """Whether the caller may answer: see Response.claim."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def drop(self, status: str) -> bool:
        """Answer in place of the application; False if it has begun itself. What it writes from now on goes nowhere."""
        if not self.claim():
            return False
        self._mute(status)
        return True

    def _mute(self, status: str) -> None:
        self.is_dropped = True
        if self.response is not None:
            self.response.status, self.response.status_code = status, int(status[:3])
            self.response.headers_sent = self.response._stream_ended = self.response.is_dropped = True
            self.response.sock = Nowhere()

    def answer(self, code: int, reason: str, detail: str) -> None:
        """The connection's greenlet writes it: TLS and HTTP/2 can't be written from the hub."""
        self.page = code, reason, detail
        self.leave()

    def leave(self) -> None:
        """Let the connection's greenlet go on. Runs on: hub, request greenlet."""
        self._answered()
        if self.stream_id is None and self.connection.state == State.RUNNING:
            self.connection.state = State.LINGERING
        if self.call is not None:
            self.call.over.set()

    def _answered(self) -> None:
        if not self.is_answered:
            self.is_answered = True
            self.connection.request_answered(self.key)

    def end(self) -> None:
        """The application has ended. Runs on: request greenlet, or the hub for a request that was turned away."""
        self.connection.serving.in_flight.pop(self.key, None)
        self._answered()
        if self.response is not None:
            vars(self.response).pop("send_headers", None)  # which refers to this

    def send_headers(self) -> None:
        """The response's own method, when it is this side's turn."""
        response, record = self.response, self.record
        if response.headers_sent:
            return
        if record is not None and record.deadline != FOREVER and not answer_begins(record, response.status):
            self.request_ended(record)
        if self._is_used_as_websocket():
            if self.drop(response.status):
                self.leave()
        elif self.is_head_sent or self.claim():
            type(response).send_headers(response)

    def request_ended(self, record: Record) -> None:
        """The request's time is over, or it was cut: see Record.on_end. Runs on: hub."""
        self.connection.serving.ending.end(self, record)

    def body_failed(self, exc: ClientLeft | ClientTooSlow) -> None:
        self.connection.serving.ending.body_failed(self, exc)

    def client_has_left(self) -> None:
        """Whoever asked has hung up. Runs on: hub, any greenlet."""
        self.is_client_gone = True
        if self.record is None and self.call is not None:
            self.connection.serving.left_line(self.call)
        elif self.record is not None:
            is_event_stream = announces_event_stream(self.response.headers)
            self.connection.serving.abandon(self.record, self.request.method, is_event_stream=is_event_stream)

    def has_client_left(self) -> bool:
        """environ["greenroom.is_client_gone"]."""
        return self.is_client_gone

    # --- the socket, taken by the application

    def take_over(self, taken: ClientsSocket) -> Any:
        """Runs on: request greenlet, or any thread."""
        record, connection = self.record, self.connection
        if record is None or record.is_over:
            raise ClientLeft("the request is over")
        if record.is_spent():
            self.request_ended(record)
        if self.is_dropped:
            raise ClientLeft(f"the request has been answered: {record.why()}")
        connection.serving.taken_over(record, taken)
        connection.look_no_more()
        self.taken = taken
        connection.is_taken = True
        connection.sock.settimeout(None)  # which bounds clients, and not whoever has the connection now
        return connection.sock

    fails_after_end = True

    def shut_down_receiving(self) -> None:
        """Wake whoever waits in recv before it reads the end, then whoever waits for the descriptor."""
        loop = self.connection.serving.loop
        waiting = self.connection.sock._read_event
        if waiting is not None and waiting.callback is not None:
            gevent.get_hub().cancel_wait(waiting, OSError("the worker stops"))
        loop.run_callback(self._shut_down_receiving)

    def _shut_down_receiving(self) -> None:
        with contextlib.suppress(OSError):  # the client was quicker
            self.connection.own.shutdown(socket.SHUT_RD)

    # --- the application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.response = start_response.__self__
        self.response.send_headers = self.send_headers
        serving, account = self.connection.serving, CURRENT.get()
        if serving.insight is not None and isinstance(account, Account):
            is_trusted = serving.trusts(self.connection.peer)
            start_response = serving.insight.opened(account, environ, start_response, is_peer_trusted=is_trusted)
        environ["wsgi.input"] = ClientBody(environ["wsgi.input"])
        environ["wsgi.early_hints"] = self._unless_dropped(environ["wsgi.early_hints"])
        environ["greenroom.is_draining"] = serving.is_stopping
        environ["greenroom.is_client_gone"] = self.has_client_left
        if self.stream_id is None:
            environ["gunicorn.socket"] = ClientsSocket(self)
        record = CURRENT.get()
        try:
            if record is not None:
                self._start_budget(record, environ)
            if self.is_dropped:
                return []
            begin = clean_up_begins(self._unless_dropped(start_response, self.response.write))
            result = serving.worker.wsgi(environ, begin)
            SHIELD.set(BARE)
            is_whole = type(result) in (list, tuple) or result is ALREADY_HANDLED
            return result if is_whole or isinstance(result, environ["wsgi.file_wrapper"]) else Items(result, self)
        except StopIteration:
            if self.taken is not None and self.taken.is_used:
                raise
            raise Failed("StopIteration") from None
        except (HTTP2StreamError, HTTP2ConnectionError):
            raise
        except BaseException as exc:  # SystemExit, GreenletExit, KeyboardInterrupt, gevent.Timeout: all the same here
            self.failed(exc)
            return []

    def _unless_dropped(self, plain: Callable[..., Any], instead: Any = None) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            return instead if self.is_dropped else plain(*args)

        return call

    def _start_budget(self, record: Record, environ: dict[str, Any]) -> None:
        """As Serving does it for plain HTTP/1.1."""
        serving = self.connection.serving
        environ["greenroom.deadline"] = record
        record.environ = environ
        record.asked = (environ["REQUEST_METHOD"], environ["RAW_URI"])
        record.answer = self.response
        record.on_end = self.request_ended
        self.record = record
        is_trusted = serving.trusts(self.connection.peer)
        record.deadline = record.arrived + serving.budgets.seconds(environ, is_peer_trusted=is_trusted)
        if self.is_client_gone:
            self.client_has_left()
        if record.is_spent():
            self.request_ended(record)

    def failed(self, exc: BaseException) -> None:
        """What the application raised: as Serving judges it. Raises what gunicorn is to answer or to log."""
        record, log = self.record, self.connection.serving.log
        if record is not None and record.is_spent():
            self.request_ended(record)  # the loop had no turn since
        asked = log_redaction.asked(self.request)
        is_used = self.taken is not None and self.taken.is_used
        has_left = record is not None and record.cut_reason == CLIENT_LEFT
        if (is_used or has_left or self.is_dropped) and not is_consequence(exc, has_ended=self.is_dropped):
            log.error("Error handling request %s", asked, exc_info=exc)
        if self.is_dropped:
            return
        has_left = has_left or self.is_closed_by_client(exc)
        if has_left or isinstance(exc, ClientLeft | ClientTooSlow):
            log.info("%s: %s", asked, CLIENT_LEFT if has_left else exc)
        elif not is_used:
            is_gunicorns = isinstance(exc, Exception) and not isinstance(exc, OSError)
            raise exc if is_gunicorns else Failed(f"{type(exc).__name__}: {exc}")
        raise Over(CLIENT_LEFT) if self.stream_id is None else HTTP2StreamError(self.stream_id, CLIENT_LEFT)


class Nowhere:
    """The socket of a response that goes nowhere."""

    def sendall(self, data: bytes) -> None:
        pass

    def send(self, data: bytes) -> int:
        return len(data)

    def sendfile(self, *_: Any, **__: Any) -> int:
        return 0


class Items:
    """What an application answers bit by bit, as long as somebody wants it."""

    def __init__(self, items: Iterable[bytes], exchange: Exchange) -> None:
        self.items = items
        self.exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        try:
            for item in self.items:
                yield item
                if self.exchange.is_dropped:
                    return
        except GeneratorExit:
            raise
        except (HTTP2StreamError, HTTP2ConnectionError):
            raise
        except BaseException as exc:
            self.exchange.failed(exc)

    def close(self) -> None:
        close = getattr(self.items, "close", None)
        if close is not None:
            close()


class ClientBody:
    """environ["wsgi.input"]: gunicorn's, with errors that say that they are the client's."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def read(self, *args: Any) -> Any:
        return self._ask(self.body.read, *args)

    def readline(self, *args: Any) -> Any:
        return self._ask(self.body.readline, *args)

    def readlines(self, *args: Any) -> Any:
        return self._ask(self.body.readlines, *args)

    def __iter__(self) -> "ClientBody":
        return self

    def __next__(self) -> Any:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.body, name)

    @staticmethod
    @for_any_thread
    def _ask(function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except (ClientLeft, ClientTooSlow):
            raise
        except TimeoutError as exc:
            raise BodyTooSlow("the rest of the body did not come in time") from exc
        except OSError as exc:
            raise ClientLeft(f"the client left before its body was complete: {exc}") from exc


class InPieces:
    """The socket that an HTTP/2 connection reads: a bounded number of frames at once, and the others between them."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self._frames = Frames()
        self._came: Iterator[bytes] = iter(())

    def recv(self, size: int) -> bytes:
        """Runs on: the connection's greenlet; switches."""
        piece = next(self._came, b"")
        if piece:
            give_way()
            return piece
        self._came = self._frames.pieces(self.sock.recv(size))
        return next(self._came, b"")

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What was received before there was HTTP/2."""
        return self._frames.pieces(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class GreenHTTP2Connection(HTTP2ServerConnection):  # type: ignore[misc]  # gunicorn has no types
    """An HTTP/2 connection that several greenlets use: one reads, and wakes whoever waits for what it read.

    Private to gunicorn: `_send_pending_data`, `_wait_for_flow_control_window`, `_handle_stream_reset`, and that a body
    waits in pump().
    """

    _closed: bool

    def __init__(self, cfg: Any, sock: Any, addr: Any, was_reset: Callable[[int], None]) -> None:
        super().__init__(cfg, InPieces(sock), addr)
        self.was_reset = was_reset  # told of each stream that the client takes back
        self.is_gone = False  # the reader has ended
        self._came = Event()
        self._writing = RLock()

    def something_came(self) -> None:
        came, self._came = self._came, Event()
        came.set()

    def receive_data(self, data: bytes | None = None) -> Any:
        """The reader's. Runs on: the connection's greenlet."""
        try:
            if data is None:
                return super().receive_data()
            return [
                request
                for piece in self.sock.pieces(data)
                for request in super(GreenHTTP2Connection, self).receive_data(piece)
            ]
        finally:
            self.something_came()

    def _handle_stream_reset(self, event: Any) -> None:
        super()._handle_stream_reset(event)
        self.was_reset(event.stream_id)

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


def _peek(sock: Any) -> bytes:
    """What has come and is not read, the beginning of it. For a connection that has ended: it does not wait."""
    with socket.socket(fileno=os.dup(sock.fileno())) as plain:
        plain.setblocking(False)
        return plain.recv(2 * GOODBYE_BYTES, socket.MSG_PEEK)


def _real_poll() -> Any:
    """gevent's poll would switch."""
    return monkey.get_original("select", "poll")()
