"""Serving: connections in, one greenlet for each request, and an answer whatever happens in it."""

import _socket
import os
import socket
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import gevent
from gunicorn.config import KNOWN_SETTINGS
from gunicorn.glogging import Logger
from gunicorn.http import wsgi
from gunicorn.http.message import _ip_in_allow_list as is_in_allow_list
from gunicorn.workers.base_async import ALREADY_HANDLED

from .. import clock, forking
from ..in_flight import BARE, CLEAN_UP, CLIENT_LEFT, CURRENT, FOREVER, SHIELD, WORKER_STOPS, Record
from ..insight.observer import Insight
from ..settings import Settings
from ..timers import Timer
from ..waits import stdlib
from . import load, log_redaction
from .admission import QUEUE_TICK_SECONDS, Admission
from .balance import Line
from .budget import HEADER, HEADER_NAME, Budgets
from .connection import Connection, State
from .ending import Ending, ErrorPage, clean_up_begins, error_answer, fitting
from .gates import AdaptiveGate, Gate, OpenGate, StaticGate
from .greenlets import RequestGreenlets
from .hangups import is_consequence
from .head import HeadParser
from .listener import Listener
from .load import Turns
from .request import PlainRequest
from .response import Response
from .sharing import Sharing
from .spinning import SpinWatch
from .takeover import ClientsSocket
from .timeouts import SWEEP_SECONDS, Timeouts
from .wire import ClientLeft, ClientTooSlow

# A request whose answer comes later than this after its deadline was not waiting, but computing.
LATE_SECONDS = 1.0
# A client that ends its side so soon after its request has nothing more to ask (`nc`, shutdown) and wants its answer.
TOGETHER_SECONDS = 0.1
# What owners of connections may take to end once they were told that the worker stops.
TOLD_SECONDS = 2.0


class Serving:
    """What one worker serves with. `is_stopping` is asked at the end of each request."""

    def __init__(self, worker: Any, settings: Settings, is_stopping: Callable[[], bool]) -> None:
        self.worker = worker
        self.settings = settings
        self.is_stopping = is_stopping
        self.cfg = worker.cfg
        self.log = worker.log
        self.errors = log_redaction.ErrorTeller(worker.cfg, worker.log)
        self.hub = gevent.get_hub()
        self.loop = self.hub.loop
        self.parser = HeadParser(self.cfg, os.environ.get("SCRIPT_NAME", ""))
        self.has_keepalive = bool(self.cfg.keepalive)
        self.most_connections: int = self.cfg.worker_connections
        self.has_proxy_protocol = self.cfg.proxy_protocol != "off"
        # What would do nothing is not called: gunicorn's own access log while it is off, and its default hooks.
        self.has_access_log = bool(self.log.access_log_enabled) or type(self.log).access is not Logger.access
        has_own_pre_request = self.cfg.pre_request is not _default_hook("pre_request")
        self.has_pre_request = has_own_pre_request or self.cfg.loglevel == "debug"
        self.has_post_request = self.cfg.post_request is not _default_hook("post_request")
        if has_own_pre_request or self.has_post_request:
            # Hooks may do with gunicorn's Request whatever they like: what is left out of ours would fail in them.
            self.parser.is_usable = False
        self.has_siblings = self.cfg.workers > 1
        self.greenlets = RequestGreenlets(self.hub, self._run)
        self.connections: set[Connection] = set()
        # Requests; while one runs its connection has its `record`.
        self.in_flight: dict[Connection, Any] = {}
        # Of requests that have become something else, the sockets that their applications took.
        self.taken: dict[Record, ClientsSocket] = {}
        # Requests that came in this turn of the loop, until all sockets have been read: see `offer`.
        self.arrivals: list[tuple[Connection, Any]] = []
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
            dismiss_idle=Connection.close_if_idle,
            dismiss_slow=Connection.dismiss_if_slow,
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
            for connection, request in arrivals:
                self._admit(connection, request)
        if self.admission.waiting:
            self.admission.release()
            if not self.admission.waiting:
                self._queue_ticker.stop()

    def trusts(self, peer: Any) -> bool:
        """Whether forwarding headers of this peer count: gunicorn's rule, asked once for each connection."""
        return not isinstance(peer, tuple) or bool(
            is_in_allow_list(peer[0], self.cfg.forwarded_allow_ips, self.cfg.forwarded_allow_networks())
        )

    @staticmethod
    def proxy_environ(info: dict[str, Any]) -> dict[str, str]:
        request = PlainRequest({}, is_kept_alive=True)
        request.proxy_protocol_info = info
        return dict(wsgi.proxy_environ(request))

    def accepted(self, listener: Listener, descriptor: int, peer: Any) -> None:
        """A client has connected. Runs on: hub."""
        sock = _socket.socket(fileno=descriptor)
        sock.setblocking(False)
        if isinstance(peer, tuple):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) >= self.most_connections:
            self.timeouts.make_room()
        connection = Connection(self, listener, sock, peer)  # type: ignore[arg-type]  # the C class is all it needs
        self.connections.add(connection)
        self.timeouts.became_idle(connection)
        connection.on_readable()  # the request has mostly come with the connection

    def is_full(self) -> bool:
        """Whether all connections that may be open are open, and busy: a new client waits in the kernel meanwhile."""
        return len(self.connections) >= self.most_connections and not self.timeouts.can_make_room()

    def offer(self, connection: Connection, request: Any) -> None:
        """A request is complete: run it or let it wait, as soon as all sockets are read. Runs on: hub.

        Reading first and running then takes a tenth less of the CPU than each request in turn, because the code that
        reads stays in the caches; and who was woken in this turn goes on before new ones begin.
        """
        self.timeouts.forget(connection)
        self.asked.add(id(connection))
        if self._is_reading:
            self.arrivals.append((connection, request))
        else:
            self._admit(connection, request)

    def _admit(self, connection: Connection, request: Any) -> None:
        """Who is admitted runs at once, until it first waits."""
        gate = self.gate
        if gate.load < gate.limit and not self.admission.waiting:
            self._run_in_greenlet(connection, request)
            return
        self.admission.wait(connection, request, self._budget_ends_at(connection, request))
        if self.admission.waiting and not self._queue_ticker.active:
            self._queue_ticker.start(_nothing)

    def _budget_ends_at(self, connection: Connection, request: Any) -> float:
        environ = request.environ if type(request) is PlainRequest else environ_for_budget(request)
        return connection.arrived + self.budgets.seconds(environ, is_peer_trusted=connection.is_peer_trusted)

    def _run_in_greenlet(self, connection: Connection, request: Any) -> None:
        connection.state = State.RUNNING
        self.in_flight[connection] = request
        self.greenlets.start(self.gate, connection, request)

    def _turn_away(self, connection: Connection, request: Any, is_spent: bool) -> None:
        """503 or 504, with as little work as possible: no greenlet, no application, no access log. Runs on: hub."""
        if is_spent:
            self._count_spent()
            page = error_answer(504, "Gateway Timeout", "The answer did not come in time.")
            connection.wire.try_send(fitting(page, request))
            connection.finish(is_kept=False)
            return
        if self.insight is not None:
            self.insight.ring.shed()
            environ = request.environ if type(request) is PlainRequest else None
            self.insight.clients.turned_away(environ, is_peer_trusted=connection.is_peer_trusted)
        is_kept = not request.should_close() and not self.is_stopping() and connection.is_body_here()
        is_kept = is_kept and not self._gives_away(request)
        # Behind half an answer the client would take the next one for its rest.
        is_whole = connection.wire.try_send(SHED_ANSWERS[is_kept, request.method == "HEAD"])
        connection.finish(is_kept=is_kept and is_whole)

    def _count_spent(self) -> None:
        self.spent_requests += 1
        if self.insight is not None:
            self.insight.expired += 1

    def _run(self, connection: Connection, request: Any) -> None:
        """The life of a request greenlet. Nothing may escape it: its parent is the hub."""
        is_kept = False
        insight = self.insight
        record: Any = Record(connection.arrived) if insight is None else insight.begin(connection.arrived)
        connection.record = record
        CURRENT.set(record)
        try:
            is_kept = self._respond(connection, request)
            connection.finish(is_kept=is_kept)
        except BaseException:
            self.log.exception("a request's connection could not be finished")
            connection.close(reset=True)
        finally:
            if record.deadline != FOREVER and record.is_spent():
                self._report_spent(record, request)
            record.finish()
            if insight is not None:
                insight.finish(record)
            record.environ = record.answer = record.on_end = None  # which lead back to the record
            connection.record = None
            taken = self.taken.pop(record, None)
            if taken is not None and taken.lost is not None:
                self.log.info("%s: its client has left: %s", log_redaction.asked(request), taken.lost)
            self.in_flight.pop(connection, None)

    def _respond(self, connection: Connection, request: Any) -> bool:
        """Run the application and write its answer; returns whether the connection may serve another request."""
        started = datetime.now() if self.has_access_log else None
        response: Response | None = None
        environ: dict[str, Any] = {}
        try:
            if self.has_pre_request:
                self.cfg.pre_request(self.worker, request)
            response, environ = self._prepare(connection, request)
            self.worker.request_started()
            if not self._start_budget(connection, response, environ):
                return False
            if self.is_stopping() or not self.has_keepalive or self._gives_away(request):
                response.force_close()
            self._answer(response, environ)
            if response.is_dropped:
                return False
            if response.is_short:
                self.log.warning("%s answered less than its Content-Length", log_redaction.asked(request))
                connection.close(reset=True)
                return False
            return not response.is_last
        except StopIteration as exc:
            # How applications that took the socket for themselves say that there is nothing left to answer.
            if not connection.wire.is_used_by_application:
                self._failed(connection, request, response, exc)
            return False
        except BaseException as exc:  # SystemExit, GreenletExit, KeyboardInterrupt, gevent.Timeout: all the same here
            self._failed(connection, request, response, exc)
            return False
        finally:
            self._finish_accounts(request, response, environ, started)
            if response is not None:
                response.let_go()

    def _gives_away(self, request: Any) -> bool:
        return self.sharing is not None and not request.should_close() and self.sharing.gives_away()

    def _prepare(self, connection: Connection, request: Any) -> tuple[Response, dict[str, Any]]:
        if type(request) is PlainRequest:
            environ = request.environ
            response = Response(request, None, self.cfg, connection.wire)
            environ["wsgi.early_hints"] = response.early_hints
        else:
            response, environ = wsgi.create(
                request,
                None,
                connection.peer,
                connection.listener.name,
                self.cfg,
                response_class=Response,
                response_args=(connection.wire,),
            )
            environ["wsgi.multithread"] = True
            environ["wsgi.early_hints"] = response.early_hints
        environ["gunicorn.socket"] = ClientsSocket(connection)
        environ["greenroom.is_client_gone"] = connection.has_client_left
        environ["greenroom.is_draining"] = self.is_stopping
        return response, environ

    def _start_budget(self, connection: Connection, response: Response, environ: dict[str, Any]) -> bool:
        """From when the request came, so it can be over before the application has begun: then False."""
        record: Any = connection.record
        assert record is not None
        environ["greenroom.deadline"] = record
        record.environ = environ
        record.asked = (environ["REQUEST_METHOD"], environ["RAW_URI"])
        record.answer = response
        if self.insight is not None:
            self.insight.prepared(record, environ, response, is_peer_trusted=connection.is_peer_trusted)
        record.on_end = connection.request_ended
        seconds = self.budgets.seconds(environ, is_peer_trusted=connection.is_peer_trusted)
        if seconds != FOREVER:
            record.deadline = record.arrived + seconds
            if record.deadline <= clock.now():
                connection.request_ended(record)
                return False
        return True

    def _answer(self, response: Response, environ: dict[str, Any]) -> None:
        try:
            self._run_application(response, environ)
        finally:
            if forking.is_child():  # forked in a view, it has come to the end of it: the answer is its parent's
                forking.leave(sys.exc_info()[1])

    def _run_application(self, response: Response, environ: dict[str, Any]) -> None:
        result = self.worker.wsgi(environ, clean_up_begins(response.start_response))
        SHIELD.set(BARE)
        if forking.is_child():
            forking.leave()
        if result is ALREADY_HANDLED:
            raise StopIteration
        try:
            if isinstance(result, environ["wsgi.file_wrapper"]):
                response.write_file(result)
            else:
                response.write_items(result)
            response.close()
        finally:
            if hasattr(result, "close"):
                SHIELD.set(CLEAN_UP)
                result.close()

    def _failed(self, connection: Connection, request: Any, response: Response | None, exc: BaseException) -> None:
        """Tell the client that its request failed, as far as that is still possible.

        1. It has been answered in place of its application, or its client has left, or its application has the wire:
           nothing is said there. An error that is only the consequence of the client's leaving is nobody's.
        2. The client left, or takes nothing: nobody is there to be told.
        3. The head was sent: the status can't be taken back; a broken connection says that this was not all. It is
           nobody's error when the worker had to stop.
        4. Its body is not what HTTP allows, or the application failed: gunicorn knows the status and logs it.
        """
        record = connection.record
        if self.insight is not None and not isinstance(exc, ClientLeft | ClientTooSlow):
            self.insight.failures.failed(exc, record)
        cut_reason = record.cut_reason if record is not None else ""
        if record is not None and record.answer is not None and record.is_spent():
            connection.request_ended(record)  # the loop had no turn since
        is_taken = connection.wire.is_used_by_application
        if response is not None and (is_taken or response.is_dropped or cut_reason == CLIENT_LEFT):
            if not is_consequence(exc, has_ended=response.is_dropped):
                self.log.error("Error handling request %s", log_redaction.asked(request), exc_info=exc)
            if not is_taken and not response.is_dropped:
                self.log.info("%s: %s", log_redaction.asked(request), cut_reason)
                connection.close(reset=True)
        elif isinstance(exc, ClientLeft | ClientTooSlow):
            self.log.info("%s: %s", log_redaction.asked(request), exc)
            connection.close(reset=True)
        elif response is not None and response.is_head_on_wire:
            if cut_reason == WORKER_STOPS:
                self.log.warning("%s: %s, its answer is broken off", log_redaction.asked(request), cut_reason)
            else:
                self.log.error("Error handling request %s", log_redaction.asked(request), exc_info=exc)
            connection.close(reset=True)
        else:
            if response is not None:
                response.claim()  # if the application has not: its head waited for a body
                response.status = None  # what is answered is not its; gunicorn writes the line of the access log
            self.errors.handle_error(request, ErrorPage(connection.wire.try_send, request), connection.peer, exc)

    def _finish_accounts(self, request: Any, response: Any, environ: dict[str, Any], started: datetime | None) -> None:
        if started is not None and response is not None and response.status is not None and not response.is_dropped:
            log_redaction.access(self.log, response, request, environ, datetime.now() - started)
        if self.has_post_request:
            try:
                self.cfg.post_request(self.worker, request, environ, response)
            except Exception:
                self.log.exception("Exception in post_request hook")

    def refuse(self, connection: Connection, exc: Exception) -> None:
        """Answer a request that could not be read, as gunicorn does, and close. Runs on: hub."""
        self.errors.handle_error(None, ErrorPage(connection.wire.try_send), connection.peer, exc)
        connection.close_gently()

    def refuse_slow_head(self, connection: Connection) -> None:
        connection.wire.try_send(error_answer(408, "Request Timeout", "The request did not come in time."))
        connection.close_gently()

    def client_left(self, connection: Connection) -> None:
        """The client of a running request has closed its connection: as a rule, nobody wants the answer any more.

        What changes something is not stopped half-way, unless a setting says so. Runs on: hub.
        """
        if connection.has_next_request():
            return  # one that sent several requests and ended its side waits for all answers
        record, waiting = connection.record, self.admission.find(connection)
        if waiting is not None and self._ends(waiting.request.method):
            if self._came_together(connection):
                return  # it has ended its side, and waits
            self.admission.leave(connection)
            if self.insight is not None:
                self.insight.ring.shed()
            connection.close()
        elif record is not None and record.answer is not None:
            self.abandon(record, record.answer.req.method, is_event_stream=record.answer.is_event_stream)

    def _came_together(self, connection: Connection) -> bool:
        """Whether the end of the client's input came with its request: who hangs up has waited for a while.

        It came after the loop had last asked its sockets, however long the turn since then took.
        """
        return self.turns.ended_at - self.turns.last_seconds - connection.arrived < TOGETHER_SECONDS

    def taken_over(self, record: Record, taken: ClientsSocket) -> None:
        """The application has the connection for itself: it is no longer a request as others are."""
        is_websocket = str(record.environ.get("HTTP_UPGRADE", "")).lower() == "websocket"
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
        return [connection.record for connection in self.in_flight if connection.record is not None]

    def _report_spent(self, record: Record, request: Any) -> None:
        """What could not be ended in time held the loop: nothing can cut that, so it is said."""
        if record.cut_reason != CLIENT_LEFT and not getattr(record.answer, "is_dropped", False):
            self.spent_requests += 1
        late_seconds = clock.now() - record.deadline
        if late_seconds > LATE_SECONDS and record.cut_reason != CLIENT_LEFT:
            self.log.warning(
                "%s ended %.1f s after %s: it did not wait, or it cleaned up",
                log_redaction.asked(request),
                late_seconds,
                record.why(),
            )

    def leave_to_parent(self) -> list[int]:
        """In a forked child: nothing of it goes to the parent's clients. Returns their descriptors."""
        found = []
        for connection in self.connections:
            found.append(connection.wire.sock.fileno())
            connection.wire.sock = ParentsSocket()  # type: ignore[assignment]  # it is to be used for nothing else
        load.leave_to_parent()
        return found

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.timeouts.forget(connection)


class ParentsSocket:
    """A client's socket in a forked child, which has come to the end of its own work when it answers that client."""

    def send(self, *_: Any) -> Any:
        forking.leave()

    sendmsg = send

    def recv(self, *_: Any) -> Any:
        raise ConnectionAbortedError("the client's connection is the parent's")

    def fileno(self) -> int:
        return -1


SHED_BODY = b"The server is overloaded. Try again in a moment.\n"
SHED_HEADERS = (("Retry-After", "1"), ("Content-Type", "text/plain"), ("Content-Length", str(len(SHED_BODY))))


def _shed_answer(*, is_kept: bool, is_head: bool) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in SHED_HEADERS)
    connection = "keep-alive" if is_kept else "close"
    head = f"HTTP/1.1 503 Service Unavailable\r\n{fields}Connection: {connection}\r\n\r\n"
    return head.encode() + (b"" if is_head else SHED_BODY)


SHED_ANSWERS = {
    (is_kept, is_head): _shed_answer(is_kept=is_kept, is_head=is_head)
    for is_kept in (True, False)
    for is_head in (True, False)
}


def gate_of(settings: Settings) -> Gate:
    if settings.admission == "off":
        return OpenGate()
    return StaticGate(settings.limit_requests) if settings.limit_requests else AdaptiveGate()


def environ_for_budget(request: Any) -> dict[str, Any]:
    """Of a request that has no environ yet, what its budget depends on."""
    asked = (value for name, value in request.headers if name == HEADER_NAME)
    return {"PATH_INFO": request.path, HEADER: next(asked, None)}


def _nothing() -> None:
    pass


def _default_hook(name: str) -> Any:
    return next(setting.default for setting in KNOWN_SETTINGS if setting.name == name)
