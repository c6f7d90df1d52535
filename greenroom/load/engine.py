"""The generator: sends each request at its planned moment, whatever became of those before, in one thread.

    due ──> an idle connection, or a new one, or in line for one ──> sent ──> answered: good, shed or an error
                                                                      │
                                                                      └──> failed, or timed out

Latency counts from the planned moment, so a generator that is late makes the server look worse, never better; how late
it was is recorded, and judged in `validity`. Raw sockets on one epoll: a request costs about 25 microseconds.
"""

import gc
import math
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator
from ssl import SSLContext
from urllib.parse import urljoin, urlsplit

from .connection import OURS, Connection, PendingRequest, kind_of
from .pacing import Pacer
from .polling import NAP_BELOW_SECONDS, Poller, poller
from .request import Answer, Prepared, follow
from .tally import GOOD, LATE_SECONDS, SHED, TIMED_OUT, Tally
from .target import Target
from .units import LoadError
from .wire import Head, ReadAnswer

LONGEST_WAIT_SECONDS = 0.25
MOST_HOPS = 10
# Requests that were due are sent in batches: between two of them answers are read.
MOST_AT_ONCE = 64
DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_LARGEST_BYTES = 10 * 1024 * 1024
# Why a request was not sent: its time was up when the generator got there.
NO_TIME = "no time"
# Descriptors that the interpreter, the report and the ops page need.
SPARE_DESCRIPTORS = 40


class Engine:
    """Runs one load. `stop()` may be called at any time, from a signal handler too."""

    def __init__(
        self,
        target: Target,
        pacer: Pacer,
        requests: Iterator[Prepared],
        *,
        length: float | None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        most_connections: int = 0,
        new_connections: bool = False,
        follows: bool = True,
        largest_bytes: int = DEFAULT_LARGEST_BYTES,
        tls: SSLContext | None = None,
        make_connection: "Callable[[Engine], Connection] | None" = None,
        on_second: Callable[["Engine", int], None] | None = None,
        tally: Tally | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.target = target
        self.pacer = pacer
        self.requests = requests
        self.timeout_seconds = timeout_seconds
        # A request that is due and not sent by then has no time left, and neither have those after it.
        self.ends_at = math.inf if length is None else length + timeout_seconds
        self.new_connections = new_connections
        self.follows = follows
        self.largest_bytes = largest_bytes
        self.tls = tls
        self.on_second = on_second
        self.now = now
        self.heads: dict[bytes, Head] = {}
        self.tally = tally or Tally(length)
        self.elapsed = 0.0
        self.cpu_seconds = 0.0
        self.unfinished = 0
        self.stopped = ""
        self._make_connection = make_connection or Connection
        self._limit, self._is_descriptors = _most_connections(most_connections)
        self.tally.is_short_of_descriptors = self._is_descriptors
        self._poller: Poller = poller()
        self._connections: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._waiting: deque[PendingRequest] = deque()
        self._pending: deque[PendingRequest] = deque()
        self._under_way = 0
        self._began = 0.0

    def stop(self, why: str) -> None:
        """End the run as soon as possible; what is under way counts as unfinished."""
        self.stopped = self.stopped or why

    def moment(self) -> float:
        return self.now() - self._began

    def run(self) -> Tally:
        was_collecting = gc.isenabled()
        gc.collect()
        gc.freeze()
        gc.disable()
        cpu_before = time.thread_time()
        self._began = self.now()
        try:
            self._run()
        finally:
            self.elapsed = self.moment()
            self.cpu_seconds = time.thread_time() - cpu_before
            self.unfinished = self._under_way
            for connection in list(self._connections.values()):
                connection.call = None
                connection.close()
            self._poller.close()
            gc.unfreeze()
            if was_collecting:
                gc.enable()
        return self.tally

    def _run(self) -> None:
        pacer, wait, connections = self.pacer, self._poller.wait, self._connections
        next_second = 1
        while not self.stopped:
            moment = self.moment()
            if pacer.due <= moment:
                self._send_due(moment)
                moment = self.moment()
            elif not self._under_way and pacer.is_over:
                return
            if moment > self.ends_at and pacer.due <= moment:
                return  # many more were planned than can be sent; those that were looked at say so
            if moment >= next_second:
                self._tick(next_second)
                next_second = int(moment) + 1
            pause = min(pacer.due - moment, next_second - moment, self._next_timeout(moment))
            events = wait(pause)
            if events:
                # Answers that came during a nap have lain there since.
                returned = self.moment() if pause >= NAP_BELOW_SECONDS else moment
                for fd, mask in events:
                    connection = connections.get(fd)
                    if connection is not None:
                        connection.on_event(mask)
                self.tally.reading.record(self.moment() - returned, len(events))
            if self._pending:
                self._end_those_timed_out()

    def _tick(self, second: int) -> None:
        if self.on_second is not None:
            self.on_second(self, second)

    def _next_timeout(self, moment: float) -> float:
        if not self._pending:
            return LONGEST_WAIT_SECONDS
        return min(LONGEST_WAIT_SECONDS, max(0.001, self._pending[0].due + self.timeout_seconds - moment))

    def _send_due(self, moment: float) -> None:
        pacer, tally, requests = self.pacer, self.tally, self.requests
        due = pacer.due
        for _ in range(MOST_AT_ONCE):
            late = moment - due
            row = tally.second(due)
            tally.planned += 1
            row.asked += 1
            tally.lateness.record(late)
            call = PendingRequest(due, next(requests))
            self._under_way += 1
            due = pacer.advance()
            if late < self.timeout_seconds:
                self._pending.append(call)
                self._launch(call, moment)
            else:
                self._not_sent(call, NO_TIME)
            moment = self.moment()
            if due > moment:
                return

    def _launch(self, call: PendingRequest, moment: float) -> None:
        """On an idle connection, a new one, or as soon as there is one."""
        if self._idle:
            connection = self._idle.pop()
            connection.is_idle = False
            self._count_sent(call, moment)
            connection.start(call)
        elif len(self._connections) < self._limit:
            self._count_sent(call, moment)
            self._open(call)
        else:
            self._waiting.append(call)

    def _open(self, call: PendingRequest) -> None:
        try:
            connection = self._make_connection(self)
        except OSError as exc:
            self._not_sent(call, kind_of(exc))
            return
        self.tally.connections += 1
        self._connections[connection.fd] = connection
        try:
            connection.open(call)
        except OSError as exc:
            connection.fail(kind_of(exc))

    def _count_sent(self, call: PendingRequest, moment: float) -> None:
        row = self.tally.seconds[int(call.due)]
        row.sent += 1
        if moment - call.due > LATE_SECONDS:
            row.late += 1

    def answered(self, connection: Connection, call: PendingRequest, reader: ReadAnswer) -> None:
        """A whole answer has come; the connection may be closed already."""
        moment = self.moment()
        head = reader.head
        assert head is not None
        if 300 <= head.status < 400 and self.follows and head.location:
            self.reuse(connection)
            self._follow(call, head, moment)
            return
        outcome = _outcome(head) if not call.prepared.checks else _checked(head, reader, call.prepared)
        self.tally.events += reader.events
        self._end(call, moment, outcome, len(head.raw) + 4 + reader.body_bytes)
        self.reuse(connection)

    def failed(self, call: PendingRequest, kind: str) -> None:
        """Count a request that will have no answer; `kind` says why."""
        if kind in OURS:
            self._not_sent(call, kind)
        else:
            self._end(call, self.moment(), kind, 0)
        self._serve_waiting()

    def _end(self, call: PendingRequest, moment: float, outcome: str, received_bytes: int) -> None:
        call.is_done = True
        self._under_way -= 1
        self.tally.ended(call.prepared.name, call.due, moment, outcome, received_bytes)
        self.pacer.finished(moment)

    def _not_sent(self, call: PendingRequest, why: str) -> None:
        call.is_done = True
        self._under_way -= 1
        self.tally.unsent[why] += 1
        self.pacer.finished(self.moment())

    def reuse(self, connection: Connection) -> None:
        """The connection has no request now: the next in line takes it."""
        if connection.can_take_another and not connection.is_idle:
            if self._waiting and (call := self._next_waiting()) is not None:
                connection.start(call)
                return
            connection.is_idle = True
            self._idle.append(connection)
        elif self._waiting:
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        if self._waiting and len(self._connections) < self._limit:
            call = self._next_waiting()
            if call is not None:
                self._open(call)

    def _next_waiting(self) -> PendingRequest | None:
        """The next in line that has time left; the others are ended when the timeouts are looked at."""
        moment = self.moment()
        while self._waiting:
            call = self._waiting.popleft()
            if not call.is_done and call.due + self.timeout_seconds > moment:
                if moment - call.due > LATE_SECONDS:
                    self.tally.waited += 1
                self._count_sent(call, moment)
                return call
        return None

    def _follow(self, call: PendingRequest, head: Head, moment: float) -> None:
        call.hops += 1
        if call.hops > MOST_HOPS:
            self._end(call, moment, "redirects for ever", 0)
            return
        there = urlsplit(urljoin(self.target.origin + call.prepared.path, head.location))
        if there.scheme != self.target.scheme or there.netloc.lower() != self.target.authority.lower():
            self._end(call, moment, f"redirects to {there.scheme}://{there.netloc}"[:80], 0)
            return
        path = (there.path or "/") + (f"?{there.query}" if there.query else "")
        try:
            call.prepared = follow(call.prepared, path, head.status, self.target, closes=self.new_connections)
        except LoadError:
            self._end(call, moment, "a redirect to no path", 0)
            return
        if self._idle:
            connection = self._idle.pop()
            connection.is_idle = False
            connection.start(call)
        elif len(self._connections) < self._limit:
            self._open(call)
        else:
            self._waiting.append(call)

    def _end_those_timed_out(self) -> None:
        pending = self._pending
        moment = self.moment()
        while pending and (pending[0].is_done or pending[0].due + self.timeout_seconds <= moment):
            call = pending.popleft()
            if call.is_done:
                continue
            if call.connection is not None:
                call.connection.give_up(call, TIMED_OUT)
            else:
                why = "no free descriptor" if self._is_descriptors else "no free connection"
                self._not_sent(call, why)

    def watch(self, connection: Connection, mask: int) -> None:
        if connection.mask == 0:
            self._poller.register(connection.fd, mask)
        elif connection.mask != mask:
            self._poller.modify(connection.fd, mask)
        connection.mask = mask

    def forget(self, connection: Connection) -> None:
        if connection.mask:
            self._poller.unregister(connection.fd)
            connection.mask = 0
        self._connections.pop(connection.fd, None)
        if connection.is_idle:
            connection.is_idle = False
            self._idle.remove(connection)


def _outcome(head: Head) -> str:
    """Good up to 399. Turned away is 429, or 503 with Retry-After: the server says it would rather be asked later."""
    status = head.status
    if status < 400:
        return GOOD
    if status == 429 or (status == 503 and head.has_retry_after):
        return SHED
    return f"status {status}"


def _checked(head: Head, reader: ReadAnswer, prepared: Prepared) -> str:
    """Return what `_outcome` does, but "good" only if all checks hold; a check of the status replaces its rule."""
    outcome = _outcome(head)
    if outcome is SHED:
        return outcome
    answer = Answer(head.status, _headers(head), reader.body)
    for check in prepared.checks:
        try:
            holds = check.holds(answer)
        except Exception as exc:  # somebody's function, or a body that is no JSON: the answer is not as expected
            return f"check failed: {check.text} ({type(exc).__name__})"
        if not holds:
            return f"check failed: {check.text}"
    decides = any(check.text.startswith("status") for check in prepared.checks)
    return GOOD if decides else outcome


def _headers(head: Head) -> dict[str, str]:
    lines = head.raw.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _most_connections(asked: int) -> tuple[float, bool]:
    """How many connections may be open at once, and whether it is the descriptors that say so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or soft < hard):
        wanted = 1_048_576 if hard == resource.RLIM_INFINITY else hard
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # not ours to raise: what there is
    room = math.inf if soft == resource.RLIM_INFINITY else max(1, soft - SPARE_DESCRIPTORS)
    return (asked, False) if 0 < asked <= room else (room, True)
