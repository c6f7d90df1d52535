"""The load generator: a closed loop of clients over keep-alive connections, in one thread, on one selector.

Closed loop: each of N clients sends its next request the moment it has the answer to the one before. So there are
always N requests under way, a slow server is asked less often, and latency is what a client waits with N - 1 others
in line. It does not say what happens when requests keep coming regardless (an open loop does).

    begin -> connect (when there is no connection) -> send -> receive -> AnswerParser -> right answer? -> begin
                                                        a time-out, a reset, a wrong answer -> error, counted

Raw sockets and a minimal parser, because each microsecond here is one that the upstream and the database, on the same
core, don't have: about 14 microseconds a request, 70,000 requests in a second of a core.
"""

import errno
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

RECEIVE_BYTES = 65_536
# How often time-outs are looked for; also the longest sleep, so that the phases change on time.
TICK_SECONDS = 0.02
# After an error a client waits, or a server that refuses would be asked ten thousand times a second.
PAUSE_AFTER_ERROR_SECONDS = 0.1


class MalformedAnswer(Exception):
    """The answer is not HTTP, or not the whole of it."""


class AnswerParser:
    """Reads one HTTP/1.x answer from pieces of any size. Knows Content-Length, chunked, and "until it closes"."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.keeps_connection = False
        self._received = b""
        self._body_starts_at = -1
        self._length: int | None = None
        self._is_chunked = False

    def feed(self, data: bytes) -> bool:
        """Take what was received; True once the answer is complete. Raises MalformedAnswer."""
        self._received = self._received + data if self._received else data
        if self._body_starts_at < 0 and not self._read_head():
            return False
        if self._is_chunked:
            return self._read_chunks()
        if self._length is None:
            return False
        end = self._body_starts_at + self._length
        if len(self._received) < end:
            return False
        self._finish(self._received[self._body_starts_at : end], end)
        return True

    def feed_end(self) -> bool:
        """The server closed; True if that completes the answer. Raises MalformedAnswer if something is missing."""
        if self._body_starts_at < 0 or self._is_chunked or self._length is not None:
            raise MalformedAnswer("the connection was closed before the answer was complete")
        self.body = self._received[self._body_starts_at :]
        return True

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self._received[:end].split(b"\r\n")
        version, _, rest = lines[0].partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit():
            raise MalformedAnswer(f"not an HTTP answer: {lines[0][:60]!r}")
        self.status = int(rest[:3])
        self.keeps_connection = version == b"HTTP/1.1"
        for line in lines[1:]:
            self._read_header(line)
        if self.status in (204, 304):
            self._length = 0
        self._body_starts_at = end + 4
        if self._length is None and not self._is_chunked:
            self.keeps_connection = False
        return True

    def _read_header(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip().lower()
        if name == b"content-length":
            if not value.isdigit():
                raise MalformedAnswer(f"Content-Length is no number: {value[:60]!r}")
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._is_chunked = value == b"chunked"
        elif name == b"connection":
            self.keeps_connection = value == b"keep-alive" or (self.keeps_connection and value != b"close")

    def _read_chunks(self) -> bool:
        """Anew from the first chunk each time: the answers that are measured come in one or two pieces."""
        pieces: list[bytes] = []
        at = self._body_starts_at
        while True:
            line_end = self._received.find(b"\r\n", at)
            if line_end < 0:
                return False
            try:
                size = int(self._received[at:line_end].partition(b";")[0], 16)
            except ValueError as exc:
                raise MalformedAnswer(f"not the size of a chunk: {self._received[at:line_end][:60]!r}") from exc
            at = line_end + 2
            if len(self._received) < at + size + 2:
                return False
            if self._received[at + size : at + size + 2] != b"\r\n":
                raise MalformedAnswer("a chunk is longer than it says")
            if size == 0:
                self._finish(b"".join(pieces), at + 2)
                return True
            pieces.append(self._received[at : at + size])
            at += size + 2

    def _finish(self, body: bytes, end: int) -> None:
        if len(self._received) > end:
            raise MalformedAnswer(f"{len(self._received) - end} bytes more than the answer has")
        self.body = body


@dataclass(frozen=True)
class Load:
    """The load: its requests, its clients, its duration. Every answer must be a 200 with exactly `expected_body`.

    (Or another status, where refusing is what is measured.)
    """

    host: str
    port: int
    path: str
    expected_body: bytes
    clients: int
    warm_up_seconds: float
    seconds: float
    timeout_seconds: float
    expected_status: int = 200
    body: bytes = b""  # to be sent, with POST

    @property
    def request(self) -> bytes:
        length = f"Content-Length: {len(self.body)}\r\n" if self.body else ""
        head = (
            f"{'POST' if self.body else 'GET'} {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"User-Agent: greenroom-benchmarks\r\nAccept: */*\r\n{length}\r\n"
        )
        return head.encode() + self.body


@dataclass
class Sample:
    """The clients' measurements between the end of the warm-up and the end of the measured time.

    completed     right answers that arrived in that time, whenever they were asked for: the throughput
    latencies_ms  of requests started in that time, waited for to their end; time-outs included
    errors        every request that failed after the warm-up, by reason
    """

    seconds: float = 0.0
    completed: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    generator_cpu_seconds: float = 0.0

    @property
    def requests_per_second(self) -> float:
        return self.completed / self.seconds if self.seconds else 0.0

    @property
    def generator_cpu_ratio(self) -> float:
        return self.generator_cpu_seconds / self.seconds if self.seconds else 0.0


class Recorder:
    """Decides what counts. Times are seconds on the monotonic clock; infinity while a phase has not begun."""

    def __init__(self) -> None:
        self.begin = self.end = float("inf")
        self.sample = Sample()

    def record(self, started: float, ended: float, error: str | None) -> None:
        if ended < self.begin:
            return  # warm-up
        if error is not None:
            self.sample.errors[error] += 1
        elif ended < self.end:
            self.sample.completed += 1
        if started >= self.begin and (error is None or error == "timeout"):
            self.sample.latencies_ms.append((ended - started) * 1000)


class Generator:
    """Runs one Load to its end. `at_start` and `at_end` are called when the measured time begins and is over."""

    def __init__(
        self,
        load: Load,
        at_start: Callable[[], None] = lambda: None,
        at_end: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.load = load
        self.at_start = at_start
        self.at_end = at_end
        self.now = now
        self.recorder = Recorder()
        self.selector = selectors.DefaultSelector()
        self.request = load.request
        self.is_draining = False
        # The last answer that came in one piece and was right. Most are the same, byte for byte (the Date changes once
        # a second), and comparing takes a tenth of the time that reading takes.
        self.right_answer: bytes | None = None
        self.clients = [Client(self) for _ in range(load.clients)]

    def run(self) -> Sample:
        """Warm up, measure, then wait for the answers that are still due; each wait ends by its time-out."""
        started = self.now()
        try:
            for client in self.clients:
                client.begin()
            self._turn_until(started + self.load.warm_up_seconds)
            self._measure()
            self.is_draining = True
            self._turn_until(self.now() + self.load.timeout_seconds + 1, until_idle=True)
        finally:
            for client in self.clients:
                client.disconnect()
            self.selector.close()
        return self.recorder.sample

    def _measure(self) -> None:
        self.at_start()
        cpu_before = time.process_time()
        begin = self.now()
        self.recorder.begin = begin
        self._turn_until(begin + self.load.seconds)
        self.recorder.end = self.now()
        self.recorder.sample.seconds = self.recorder.end - begin
        self.recorder.sample.generator_cpu_seconds = time.process_time() - cpu_before
        self.at_end()

    def _turn_until(self, moment: float, *, until_idle: bool = False) -> None:
        next_tick = self.now() + TICK_SECONDS
        while (now := self.now()) < moment:
            for key, _ in self.selector.select(max(0.0, min(next_tick, moment) - now)):
                key.data.on_event()
            if self.now() >= next_tick:
                next_tick = self.now() + TICK_SECONDS
                for client in self.clients:
                    client.on_tick()
                if until_idle and not any(client.is_waiting for client in self.clients):
                    return


class Client:
    """One simulated client: one connection, one request at a time."""

    __slots__ = ("generator", "sock", "parser", "started", "resume_at", "is_waiting", "is_connecting", "unsent")

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.sock: socket.socket | None = None
        self.parser: AnswerParser | None = None  # only while an answer is read that has to be looked at
        self.started = 0.0
        self.resume_at: float | None = None
        self.is_waiting = False
        self.is_connecting = False
        self.unsent: memoryview | None = None  # of a request that the socket did not take whole

    def begin(self) -> None:
        """Send the next request. Its time begins here: connecting is part of what the client waits for."""
        self.started = self.generator.now()
        self.resume_at = None
        self.is_waiting = True
        self.parser = None
        try:
            if self.sock is None:
                self._connect()
            else:
                self._send()
        except OSError as exc:
            self._fail(reason(exc))

    def on_event(self) -> None:
        try:
            if self.is_connecting:
                self._finish_connecting()
            elif self.unsent is not None:
                self._send_rest(self.unsent)
            else:
                self._receive()
        except OSError as exc:
            self._fail(reason(exc))
        except MalformedAnswer:
            self._fail("malformed answer")

    def on_tick(self) -> None:
        now = self.generator.now()
        if self.is_waiting and now - self.started > self.generator.load.timeout_seconds:
            self._fail("timeout")
        elif self.resume_at is not None and now >= self.resume_at and not self.generator.is_draining:
            self.begin()

    def disconnect(self) -> None:
        if self.sock is not None:
            self.generator.selector.unregister(self.sock)
            self.sock.close()
            self.sock = self.unsent = None

    def _connect(self) -> None:
        load = self.generator.load
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_connecting = True
        self.generator.selector.register(self.sock, selectors.EVENT_WRITE, self)
        code = self.sock.connect_ex((load.host, load.port))
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(code, "connect")

    def _finish_connecting(self) -> None:
        assert self.sock is not None
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "connect")
        self.is_connecting = False
        self.generator.selector.modify(self.sock, selectors.EVENT_READ, self)
        self._send()

    def _send(self) -> None:
        assert self.sock is not None
        request = self.generator.request
        sent = self.sock.send(request)
        if sent < len(request):  # a body of a megabyte; a head goes whole into an empty buffer
            self.unsent = memoryview(request)[sent:]
            self.generator.selector.modify(self.sock, selectors.EVENT_WRITE, self)

    def _send_rest(self, rest: memoryview) -> None:
        assert self.sock is not None
        rest = rest[self.sock.send(rest) :]
        self.unsent = rest or None
        if not rest:
            self.generator.selector.modify(self.sock, selectors.EVENT_READ, self)

    def _receive(self) -> None:
        assert self.sock is not None
        data = self.sock.recv(RECEIVE_BYTES)
        if not self.is_waiting:
            # Closed by the server while nothing was asked, or words that nobody asked for; the next request connects.
            self.disconnect()
            return
        is_first_piece = self.parser is None
        if is_first_piece and data == self.generator.right_answer:
            self._go_on()
            return
        parser = self.parser = self.parser or AnswerParser()
        if parser.feed(data) if data else parser.feed_end():
            self._finish(parser, whole=data if is_first_piece else None)

    def _finish(self, parser: AnswerParser, whole: bytes | None) -> None:
        load = self.generator.load
        if parser.status != load.expected_status:
            return self._fail(f"status {parser.status}")
        if parser.body != load.expected_body:
            return self._fail("wrong body")
        if not parser.keeps_connection:
            self.disconnect()
        elif whole is not None:
            self.generator.right_answer = whole
        self._go_on()

    def _go_on(self) -> None:
        self._record(None)
        if not self.generator.is_draining:
            self.begin()

    def _fail(self, error: str) -> None:
        self._record(error)
        self.disconnect()
        self.resume_at = self.generator.now() + PAUSE_AFTER_ERROR_SECONDS

    def _record(self, error: str | None) -> None:
        self.is_waiting = False
        self.generator.recorder.record(self.started, self.generator.now(), error)


def reason(exc: OSError) -> str:
    """A short name for the report: `connection refused`, `connection reset`."""
    names = {errno.ECONNREFUSED: "connection refused", errno.ECONNRESET: "connection reset", errno.EPIPE: "broken pipe"}
    return names.get(exc.errno or 0, (exc.strerror or type(exc).__name__).lower())
