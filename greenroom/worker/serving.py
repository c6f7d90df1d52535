"""Serving: connections in, admission, and what becomes of all requests of one worker."""

import _socket
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import gevent
from gunicorn.http import wsgi

from .. import clock
from ..gunicorns_parts import Config, Worker
from ..in_flight import CLIENT_LEFT, FOREVER, WORKER_STOPS, Record
from ..insight.observer import Insight
from ..settings import Settings
from ..timers import Timer
from ..waits import stdlib
from . import gunicorns, load, log_redaction
from .admission import QUEUE_TICK_SECONDS, Admission
from .balance import Line
from .budget import Budgets, environ_for_budget
from .connection import Connection
from .cycle import RequestCycle
from .ending import Ending, ErrorPage, error_answer, fitting
from .exchange import Exchange
from .fair import PerTurn
from .gates import gate_of
from .greenlets import RequestGreenlets
from .head import HeadParser
from .listener import Listener
from .load import Turns
from .request import ClientRequest, PlainRequest, ProxyProtocol
from .sharing import Sharing
from .spinning import SpinWatch
from .takeover import ClientsSocket
from .timeouts import SWEEP_SECONDS, Timeouts
from .timeouts import Greeting as TimedClient
from .transport import Peer, Transport
from .transport.handshake import MOST_HANDSHAKES, Handshake
from .transport.tls import TLSSocket, context_of

if TYPE_CHECKING:
    from .http2.cleartext import Cleartext
    from .http2.connection import HTTP2Connection

# Owners of connections may take so long to end once they were told that the worker stops.
TOLD_SECONDS = 2.0
PLAIN_ON_TLS = "This port speaks HTTPS, and the request came without TLS. Ask https:// instead."


class Client(TimedClient, Protocol):
    """A connection, in its handshake or of any protocol."""

    def begin_to_drain(self) -> None:
        """Say with the next answer that the connection ends: the worker stops."""

    def leave_to_parent(self) -> int:
        """In a forked child: it is used no more. Returns its descriptor."""


class ServingWorker(Worker, Protocol):
    """The worker that serves: of our class, or of a test."""

    def request_started(self) -> None: ...


class Serving:
    """The parts that one worker serves with. `is_stopping` is asked at the end of each request."""

    def __init__(self, worker: ServingWorker, settings: Settings, is_stopping: Callable[[], bool]) -> None:
        self.worker = worker
        self.settings = settings
        self.is_stopping = is_stopping
        self.cfg = worker.cfg
        self.log = worker.log
        self.hub = gevent.get_hub()
        self.loop = self.hub.loop
        self.parser = HeadParser(self.cfg, os.environ.get("SCRIPT_NAME", ""))
        self.has_keepalive = bool(self.cfg.keepalive)
        self.most_connections: int = self.cfg.worker_connections
        self.has_proxy_protocol = gunicorns.has_proxy_protocol(self.cfg)
        self.cycle = RequestCycle(self)
        self.has_access_log = self.cycle.has_access_log
        if self.cycle.has_own_hooks:
            self.parser.is_usable = False
        self.has_siblings = self.cfg.workers > 1
        self.greenlets = RequestGreenlets(self.hub, self.cycle.run)
        self.tls = context_of(self.cfg)
        self.cleartext = cleartext_of(self.cfg)
        self.connections: set[Client] = set()
        # Requests; while one runs its exchange has its `record`.
        self.in_flight: dict[Exchange, ClientRequest] = {}
        # Of requests that have become something else, the sockets that their applications took.
        self.taken: dict[Record, ClientsSocket] = {}
        # Requests that came in this turn of the loop, until all sockets have been read: see `offer`.
        self.arrivals: list[tuple[Exchange, ClientRequest]] = []
        self._is_reading = False
        self.budgets = Budgets(
            settings.request_budget_milliseconds / 1000,
            {path: number / 1000 for path, number in settings.route_budgets_milliseconds.items()},
        )
        # By identity, the connections that have asked something lately. Some are given away to other workers.
        self.asked: set[int] = set()
        self.sharing: Sharing | None = None
        # On the scoreboard, where it is seen also when one of these requests blocks the loop.
        self.line: Line | None = getattr(worker, "line", None)
        self.ending = Ending(self)
        # Since the worker's start, for metrics.
        self.spent_requests = 0
        self.abandoned_requests = 0
        self.timeouts = Timeouts(
            # 0 is for connections that have had their answer; one that has just come gets time to ask.
            keepalive_seconds=self.cfg.keepalive or settings.keepalive_seconds,
            head_timeout_seconds=settings.head_timeout_seconds,
            handshake_timeout_seconds=settings.tls_handshake_timeout_seconds,
            send_timeout_seconds=settings.send_timeout_seconds,
        )
        self._sweeper = self.loop.timer(SWEEP_SECONDS, repeat=SWEEP_SECONDS)
        self.gate = gate_of(settings)
        self.admission = Admission(
            self.gate,
            self._run_in_greenlet,
            self._turn_away,
            patience_seconds=settings.client_patience_milliseconds / 1000,
            queue_limit_requests=settings.queue_limit_requests,
            priority_paths=settings.priority_path_prefixes,
        )
        self.turns = Turns(self.loop, self._turn_began, self._turn_ending, self._progress)
        self.spin_watch = SpinWatch(self.turns)
        self.handshakes = PerTurn(self.turns, MOST_HANDSHAKES)
        self.insight: Insight | None = None
        # An idle loop must not sleep while requests wait in line.
        self._queue_ticker = Timer(self.loop, QUEUE_TICK_SECONDS, "requests wait in line", repeats=True)

    def start(self) -> None:
        stdlib.install_hub()
        self._sweeper.start(self._sweep)
        self.turns.start()

    def stop(self) -> None:
        self._sweeper.stop()
        self._queue_ticker.stop()
        self.turns.stop()
        self._is_reading = False
        self.greenlets.clear()

    def _sweep(self) -> None:
        self.timeouts.sweep()
        self.admission.report()
        self.spin_watch.look()

    def _progress(self) -> float:
        return self.gate.slices + (0.0 if self.line is None else self.line.accepted)

    def _turn_began(self, idle_seconds: float) -> None:
        if self.insight is not None:
            self.insight.slices.turned(self.turns.ended_at, self.turns.began_at)
        self.gate.turn(idle_seconds, self.turns.last_seconds)
        self._is_reading = True

    def _turn_ending(self) -> None:
        self._is_reading = False
        if self.arrivals:
            arrivals, self.arrivals = self.arrivals, []
            if self.line is not None:
                self.line.offered = len(self.in_flight) + len(arrivals)
            for exchange, request in arrivals:
                self._admit(exchange, request)
        if self.admission.waiting:
            self.admission.release()
            if not self.admission.waiting:
                self._queue_ticker.stop()

    def trusts(self, peer: Peer) -> bool:
        """Whether forwarding headers of this peer count: gunicorn's rule, asked once for each connection."""
        return not isinstance(peer, tuple) or gunicorns.is_trusted(peer[0], self.cfg)

    @staticmethod
    def proxy_environ(info: ProxyProtocol) -> dict[str, str]:
        request = PlainRequest({}, is_kept_alive=True)
        request.proxy_protocol_info = info
        return dict(wsgi.proxy_environ(request))

    def accepted(self, listener: Listener, descriptor: int, peer: Peer) -> None:
        """A client has connected. Runs on: hub."""
        sock: Transport
        if self.tls is None:
            sock = _socket.socket(fileno=descriptor)
            sock.setblocking(False)
        else:
            sock = secured = TLSSocket(descriptor, self.tls, is_quiet=self.cfg.suppress_ragged_eofs)
        if isinstance(peer, tuple):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeouts.make_room(self._has_most_connections)
        if self.tls is None:
            self._serve_http1(listener, sock, peer)
        else:
            handshake = Handshake(self, listener, secured, peer, self._agreed, self._refuse_plain)
            self.connections.add(handshake)
            self.timeouts.handshake_began(handshake)

    def _agreed(self, handshake: Handshake, protocol: str | None) -> None:
        """The handshake is over; `protocol` is what ALPN chose."""
        if protocol == "h2":
            self.serve_http2(handshake.listener, handshake.sock, handshake.peer).begin()
        else:
            self._serve_http1(handshake.listener, handshake.sock, handshake.peer)

    def _serve_http1(self, listener: Listener, sock: Transport, peer: Peer) -> None:
        connection = Connection(self, listener, sock, peer)
        self.connections.add(connection)
        self.timeouts.became_idle(connection)
        connection.on_readable()  # the request has mostly come with the connection

    def serve_http2(self, listener: Listener, sock: Transport, peer: Peer) -> "HTTP2Connection":
        """A connection that is to begin. Needs h2, which gunicorn has looked for."""
        from .http2.connection import HTTP2Connection

        connection = HTTP2Connection(self, listener, sock, peer)
        self.connections.add(connection)
        return connection

    def _refuse_plain(self, handshake: Handshake, sock: Transport) -> None:
        """Answer plain HTTP on a TLS port with the reason why it is not served."""
        connection = Connection(self, handshake.listener, sock, handshake.peer)
        self.connections.add(connection)
        connection.refuse(error_answer(400, "Bad Request", PLAIN_ON_TLS))

    def is_full(self) -> bool:
        """Whether all connections that may be open are open, and busy: a new client waits in the kernel meanwhile."""
        return self._has_most_connections() and not self.timeouts.can_make_room()

    def _has_most_connections(self) -> bool:
        return len(self.connections) >= self.most_connections

    def offer(self, exchange: Exchange, request: ClientRequest) -> None:
        """A request is complete: run it or let it wait, as soon as all sockets are read. Runs on: hub.

        Reading first and running then takes a tenth less of the CPU than each request in turn, because the code that
        reads stays in the caches; and requests that were woken in this turn go on before new ones begin.
        """
        if self._is_reading:
            self.arrivals.append((exchange, request))
        else:
            self._admit(exchange, request)

    def _admit(self, exchange: Exchange, request: ClientRequest) -> None:
        """An admitted request runs at once, until it first waits."""
        if exchange.is_reset:
            return
        gate = self.gate
        if gate.load < gate.limit and not self.admission.waiting:
            self._run_in_greenlet(exchange, request)
            return
        self.admission.wait(exchange, request, self._budget_ends_at(exchange, request))
        if self.admission.waiting and not self._queue_ticker.active:
            self._queue_ticker.start(_nothing)

    def _budget_ends_at(self, exchange: Exchange, request: ClientRequest) -> float:
        environ = request.environ if isinstance(request, PlainRequest) else environ_for_budget(request)
        return exchange.arrived + self.budgets.seconds(environ, is_peer_trusted=exchange.is_peer_trusted)

    def _run_in_greenlet(self, exchange: Exchange, request: ClientRequest) -> None:
        exchange.start()
        self.in_flight[exchange] = request
        self.greenlets.start(self.gate, exchange, request)

    def request_finished(self, exchange: Exchange, record: Record, request: ClientRequest) -> None:
        """Runs on: request greenlet, at its end."""
        taken = self.taken.pop(record, None)
        if taken is not None and taken.lost is not None:
            self.log.info("%s: its client has left: %s", log_redaction.asked(request), taken.lost)
        self.in_flight.pop(exchange, None)

    def _turn_away(self, exchange: Exchange, request: ClientRequest, is_spent: bool) -> None:
        """503 or 504, with as little work as possible: no greenlet, no application, no access log. Runs on: hub."""
        if is_spent:
            self._count_spent()
            exchange.send_page(
                fitting(error_answer(504, "Gateway Timeout", "The answer did not come in time."), request)
            )
            exchange.finish(is_kept=False)
            return
        if self.insight is not None:
            self.insight.ring.shed()
            environ = request.environ if isinstance(request, PlainRequest) else None
            self.insight.clients.turned_away(environ, is_peer_trusted=exchange.is_peer_trusted)
        exchange.shed(request, is_kept=not self.is_stopping() and not self.gives_away(request))

    def _count_spent(self) -> None:
        self.spent_requests += 1
        if self.insight is not None:
            self.insight.expired += 1

    def gives_away(self, request: ClientRequest) -> bool:
        """Whether the connection of `request` is to end with this answer, for a sibling to get the next one."""
        return self.sharing is not None and not request.should_close() and self.sharing.gives_away()

    def refuse(self, connection: Connection, exc: Exception) -> None:
        """Answer a request that could not be read, as gunicorn does, and close. Runs on: hub."""
        if self.insight is not None:
            self.insight.clients.refuse(exc)
        pages: list[bytes] = []
        self.cycle.errors.handle_error(None, ErrorPage(pages.append), connection.peer, exc)
        connection.refuse(b"".join(pages))

    def client_left(self, exchange: Exchange, *, may_wait: bool = False) -> None:
        """The client of a request has closed its connection, or reset its stream: as a rule, nobody wants the answer.

        A request that changes something is not stopped half-way, unless a setting says so. `may_wait`: the client ended
        its side together with its request, and may wait for its turn. Runs on: hub.
        """
        record, waiting = exchange.record, self.admission.find(exchange)
        if waiting is not None and self._ends(waiting.request.method):
            if may_wait:
                return
            self.admission.leave(exchange)
            if self.insight is not None:
                self.insight.ring.shed()
            exchange.leave_line()
        elif record is not None and record.answer is not None:
            self.abandon(record, record.answer.req.method, is_event_stream=record.answer.is_event_stream)

    def turn_began_at(self) -> float:
        """When the loop last asked its sockets: what they say now came later."""
        return self.turns.ended_at - self.turns.last_seconds

    def taken_over(self, record: Record, taken: ClientsSocket) -> None:
        """The application has the connection for itself: it is no longer a request as others are."""
        is_websocket = str((record.environ or {}).get("HTTP_UPGRADE", "")).lower() == "websocket"
        record.release("websocket" if is_websocket else "taken over")
        if is_websocket:
            taken.became_websocket()
        self.taken[record] = taken

    def abandon(self, record: Record, method: str, *, is_event_stream: bool) -> None:
        """Nobody wants this request's answer: end it, if such requests are to end. Runs on: hub, any greenlet."""
        if self._ends(method, is_event_stream=is_event_stream):
            self.abandoned_requests += 1
            record.cut(CLIENT_LEFT)

    def _ends(self, method: str, *, is_event_stream: bool = False) -> bool:
        """Whether a request ends when its client leaves."""
        ends = self.settings.client_left_ends
        return ends == "all" or (ends == "safe" and (method in ("GET", "HEAD") or is_event_stream))

    def cut_all(self, clean_up_seconds: float) -> int:
        """End the requests that run or wait, because the worker has to: they answer 503.

        Returns how many ran and were not cut before.

        Runs on: main greenlet.
        """
        self.admission.turn_away_all()
        records = [
            record for record in self.running_records() if record.clean_up_at_most == FOREVER and not record.became
        ]
        self.tell_takers(only_websockets=False)
        if records:
            self.log.warning("%s requests are cut: the worker has to stop", len(records))
        for record in records:
            record.cut(WORKER_STOPS, clean_up_seconds)
        return len(records)

    def tell_takers(self, *, only_websockets: bool = True) -> None:
        """The worker stops: tell those who have connections for themselves. Runs on: hub, main greenlet."""
        now = clock.now()
        for record, taken in list(self.taken.items()):
            if taken.is_websocket or not only_websockets:
                taken.tell(now)
            if taken.is_told and now - taken.told_at > TOLD_SECONDS and record.became:
                record.became = ""  # its client has gone; what its owner waits for now is of no use
                record.cut(WORKER_STOPS)

    def running_records(self) -> list[Record]:
        return [exchange.record for exchange in self.in_flight if exchange.record is not None]

    def leave_to_parent(self) -> list[int]:
        """In a forked child: nothing of it goes to the parent's clients. Returns their descriptors."""
        found = [connection.leave_to_parent() for connection in self.connections]
        load.leave_to_parent()
        return found

    def closed(self, connection: Client) -> None:
        self.connections.discard(connection)
        self.timeouts.forget(connection)


def cleartext_of(cfg: Config) -> "Cleartext | None":
    """How HTTP/2 is spoken without TLS; None where it is not."""
    if cfg.is_ssl or "h2" not in getattr(cfg, "http_protocols", ()) or getattr(cfg, "http2_cleartext", "off") == "off":
        return None
    from .http2.cleartext import Cleartext

    return Cleartext(cfg)


def _nothing() -> None:
    pass
