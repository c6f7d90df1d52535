"""Open-loop load: requests come when they come, whatever became of those before.

Arrivals are Poisson: the pauses between them are exponential, as of many clients who don't know of each other. Each
request is sent once; who has no whole answer after `give_up_seconds` closes the connection, as a person or a proxy
would. A request's time begins when it was due, not when the generator found the time to send it, so a generator that
is late makes the server look worse, never better; how late it was is reported.

    due ──> an idle connection, or a new one ──> sent ──> whole answer: (due, seconds, status)
                                                   │
                                                   └──> a reset, a broken answer, or time is up: (due, seconds, reason)
"""

import errno
import random
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .client import RECEIVE_BYTES, AnswerParser, MalformedAnswer, reason
from .stats import percentile

LONGEST_SELECT_SECONDS = 0.02


@dataclass(frozen=True)
class Phase:
    """So many requests a second, for so long."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. `due` is counted from the beginning of the run."""

    due: float
    seconds: float
    result: int | str  # the answer's status, or why there was none


@dataclass
class Run:
    """All outcomes, in the order in which the requests were due."""

    outcomes: list[Outcome] = field(default_factory=list)
    cpu_ratio: float = 0.0
    latest_seconds: float = 0.0  # how late the generator was at worst
    connections: int = 0

    def between(self, begin: float, end: float) -> "Slot":
        return Slot(end - begin, [one for one in self.outcomes if begin <= one.due < end])


@dataclass
class Slot:
    """The requests that were due in some stretch of time."""

    seconds: float
    outcomes: list[Outcome]

    @property
    def good(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.result == 200]

    @property
    def offered_per_second(self) -> float:
        return len(self.outcomes) / self.seconds

    @property
    def good_per_second(self) -> float:
        return len(self.good) / self.seconds

    @property
    def shed_ratio(self) -> float:
        return self.count(503) / len(self.outcomes) if self.outcomes else 0.0

    @property
    def good_ratio(self) -> float:
        return len(self.good) / len(self.outcomes) if self.outcomes else 1.0

    def count(self, result: int | str) -> int:
        return sum(one.result == result for one in self.outcomes)

    def milliseconds(self, percent: float, result: int = 200) -> float:
        return percentile([one.seconds * 1000 for one in self.outcomes if one.result == result], percent)


def arrivals(phases: Sequence[Phase], chance: random.Random) -> Iterator[float]:
    """When requests are due, in seconds from the beginning."""
    begin = 0.0
    for phase in phases:
        end = begin + phase.seconds
        due = begin
        while phase.rate > 0:
            due += chance.expovariate(phase.rate)
            if due >= end:
                break
            yield due
        begin = end


class OpenLoop:
    """Runs the phases, one after the other without a pause. `keeps_connections`: otherwise each request has its own."""

    def __init__(
        self,
        host: str,
        port: int,
        path: str,
        phases: Sequence[Phase],
        *,
        give_up_seconds: float = 1.0,
        keeps_connections: bool = True,
        chance: random.Random | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = (host, port)
        self.request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: greenroom-benchmarks\r\n\r\n".encode()
        )
        self.dues = arrivals(phases, chance or random.Random(1))
        self.give_up_seconds = give_up_seconds
        self.keeps_connections = keeps_connections
        self.now = now
        self.selector = selectors.DefaultSelector()
        self.idle: list[Connection] = []
        self.pending: deque[tuple[float, Connection]] = deque()  # by due, so by the moment they give up
        self.run_ = Run()
        self.began = 0.0

    def run(self) -> Run:
        self.began = self.now()
        cpu_before = time.process_time()
        due = next(self.dues, None)
        try:
            while due is not None or self.pending:
                passed = self.now() - self.began
                while due is not None and due <= passed:
                    self.run_.latest_seconds = max(self.run_.latest_seconds, passed - due)
                    self._send(due)
                    due = next(self.dues, None)
                    passed = self.now() - self.began
                wait = LONGEST_SELECT_SECONDS if due is None else min(due - passed, LONGEST_SELECT_SECONDS)
                for key, _ in self.selector.select(max(wait, 0.0)):
                    key.data.on_event()
                self._give_up(self.now() - self.began - self.give_up_seconds)
        finally:
            self.run_.cpu_ratio = (time.process_time() - cpu_before) / (self.now() - self.began)
            for key in list(self.selector.get_map().values()):
                key.data.close()
            self.selector.close()
        self.run_.outcomes.sort(key=lambda one: one.due)
        return self.run_

    def _send(self, due: float) -> None:
        connection = self.idle.pop() if self.idle else Connection(self)
        self.pending.append((due, connection))
        connection.send(due)

    def _give_up(self, until: float) -> None:
        while self.pending and (self.pending[0][0] <= until or self.pending[0][1].due != self.pending[0][0]):
            due, connection = self.pending.popleft()
            if connection.due == due:  # else it was answered, and the connection may serve another request by now
                connection.fail("gave up")

    def finished(self, connection: "Connection", due: float, result: int | str) -> None:
        self.run_.outcomes.append(Outcome(due, self.now() - self.began - due, result))


class Connection:
    """A connection with at most one request under way; `due` is when that one was, None while there is none."""

    __slots__ = ("due", "is_connecting", "loop", "parser", "sock")

    def __init__(self, loop: OpenLoop) -> None:
        self.loop = loop
        self.due: float | None = None
        self.parser = AnswerParser()
        self.sock: socket.socket | None = None
        self.is_connecting = False

    def send(self, due: float) -> None:
        self.due = due
        self.parser = AnswerParser()
        try:
            if self.sock is None:
                self._connect()
            elif self.sock.send(self.loop.request) != len(self.loop.request):
                self.fail("not taken")
        except OSError as exc:
            self.fail(reason(exc))

    def _connect(self) -> None:
        self.loop.run_.connections += 1
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_connecting = True
        self.loop.selector.register(self.sock, selectors.EVENT_WRITE, self)
        code = self.sock.connect_ex(self.loop.address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect")

    def on_event(self) -> None:
        if self.sock is None:
            return  # closed by another event of the same look at the selector
        try:
            if self.is_connecting:
                self._connected()
            else:
                self._receive()
        except OSError as exc:
            self.fail(reason(exc))
        except MalformedAnswer:
            self.fail("cut short")

    def _connected(self) -> None:
        assert self.sock is not None
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "connect")
        self.is_connecting = False
        self.loop.selector.modify(self.sock, selectors.EVENT_READ, self)
        self.sock.send(self.loop.request)

    def _receive(self) -> None:
        assert self.sock is not None
        data = self.sock.recv(RECEIVE_BYTES)
        if self.due is None:
            self.loop.idle.remove(self)
            self.close()
        elif self.parser.feed(data) if data else self.parser.feed_end():
            due, self.due = self.due, None
            self.loop.finished(self, due, self.parser.status)
            if self.loop.keeps_connections and self.parser.keeps_connection:
                self.loop.idle.append(self)
            else:
                self.close()

    def fail(self, why: str) -> None:
        if self.due is not None:
            due, self.due = self.due, None
            self.loop.finished(self, due, why)
        elif self in self.loop.idle:
            self.loop.idle.remove(self)
        self.close()

    def close(self) -> None:
        if self.sock is not None:
            self.loop.selector.unregister(self.sock)
            self.sock.close()
            self.sock = None
