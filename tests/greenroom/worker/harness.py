"""Both workers in this process, over real sockets and in virtual no time: what one packet or byte changes, both tell.

`Ours` serves with Serving and Connection as GreenWorker does; `Stock` with gunicorn's gevent worker's own `handle`. The
clients are raw sockets that wait in the loop. Nothing is patched.
"""

import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gevent
from gevent import socket as green
from gevent.server import StreamServer
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.ggevent import GeventWorker

from greenroom.settings import Settings
from greenroom.worker.balance import Scoreboard
from greenroom.worker.listener import Listener
from greenroom.worker.serving import Serving

LONG_WAIT_SECONDS = 10.0
HEAD_END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
DATE = re.compile(rb"Date: [^\r]*\r\n")


class Records(logging.Handler):
    """The log's records; gunicorn's logger sends nothing up to the root's handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def at(self, level: int) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno >= level]


class Worker(GeventWorker):
    """The worker as connections see it, without a process. `alive` and handle_error are gunicorn's."""

    def __init__(self, cfg: Config, application: Any) -> None:
        self.cfg = cfg
        self.log = Logger(cfg)
        self.wsgi = application
        self.alive = True
        self.nr = 0
        self.max_requests = sys.maxsize
        self.worker_connections = 1000

    def request_started(self) -> None:
        self.nr += 1


class Ours:
    name = "greenroom"

    def __init__(self, cfg: Config, application: Any, settings: Settings, sock: socket.socket) -> None:
        self.worker = Worker(cfg, application)
        self.serving = Serving(self.worker, settings, lambda: False)
        self.owner = self.worker  # the scoreboard's line lives as long as this
        board = Scoreboard(4)
        self.listener = Listener(self.serving, sock, board.take(self.owner), None)
        self.serving.start()
        self.listener.start()

    def stop(self) -> None:
        for connection in list(self.serving.connections):
            connection.close()
        for connection in [*self.serving.timeouts.lingering, *self.serving.timeouts.taking]:
            connection.close()
        self.serving.stop()
        self.listener.close()


class Stock:
    name = "gevent"

    def __init__(self, cfg: Config, application: Any, settings: Settings, sock: socket.socket) -> None:
        self.worker = Worker(cfg, application)
        listener = green.socket(sock.family, sock.type, fileno=sock.detach())
        self.server = StreamServer(listener, handle=partial(self.worker.handle, listener))
        self.server.start()

    def stop(self) -> None:
        self.server.stop(timeout=0)


@dataclass
class Site:
    """A running server, and ways to talk to it."""

    kind: Any
    address: Any
    family: int
    records: Records

    def connect(self) -> "Client":
        sock = green.socket(self.family)
        sock.connect(self.address)
        sock.settimeout(LONG_WAIT_SECONDS)
        return Client(sock)

    def ask(self, data: bytes, *pieces: bytes) -> bytes:
        """Everything that comes back until the server closes; the client ends its side after the last piece."""
        with self.connect() as client:
            client.send(data)
            for piece in pieces:
                turn()
                client.send(piece)
            client.end()
            return client.rest()


class Client:
    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.buffer = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused already: what was answered is read next

    def end(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server was first

    def rest(self) -> bytes:
        """Read until the connection ends; b"<reset>" is at the end when it was broken and not closed."""
        try:
            while data := self.sock.recv(1_000_000):
                self.buffer += data
        except ConnectionResetError:
            self.buffer += b"<reset>"
        data, self.buffer = self.buffer, b""
        return data

    def until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            data = self.sock.recv(1_000_000)
            if not data:
                raise AssertionError(f"the connection ended before {end!r}: {self.buffer!r}")
            self.buffer += data
        cut = self.buffer.index(end) + len(end)
        data, self.buffer = self.buffer[:cut], self.buffer[cut:]
        return data

    def is_open(self) -> bool:
        """Whether the server has neither closed nor said anything."""
        turn(3)
        self.sock.settimeout(0.01)
        try:
            return self.sock.recv(1, socket.MSG_PEEK) != b""
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(LONG_WAIT_SECONDS)

    def answer(self, method: str = "GET") -> "Answer":
        """The next response, whole."""
        head = self.until(HEAD_END)
        while head.startswith(b"HTTP/1.1 1") and not head.startswith(b"HTTP/1.1 101"):
            head = self.until(HEAD_END)
        answer = Answer.of_head(head)
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if answer.header("Transfer-Encoding") == "chunked":
            return replace(answer, body=self._chunks())
        length = answer.header("Content-Length")
        if length is None:
            return replace(answer, body=self.rest())
        while len(self.buffer) < int(length):
            data = self.sock.recv(1_000_000)
            assert data, f"the connection ended in a body: {self.buffer!r}"
            self.buffer += data
        body, self.buffer = self.buffer[: int(length)], self.buffer[int(length) :]
        return replace(answer, body=body)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.until(b"\r\n"), 16):
            while len(self.buffer) < size + 2:
                data = self.sock.recv(1_000_000)
                assert data, "the connection ended in a chunk"
                self.buffer += data
            body += self.buffer[:size]
            self.buffer = self.buffer[size + 2 :]
        assert self.until(b"\r\n") == b"\r\n"
        return body


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @classmethod
    def of_head(cls, head: bytes) -> "Answer":
        lines = head.decode("latin-1").split("\r\n")
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:-2]))
        return cls(int(lines[0].split(" ")[1]), headers)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def framing(self) -> tuple[Any, ...]:
        """The parts that tell a client where this answer ends and whether another may follow."""
        names = ("Connection", "Transfer-Encoding", "Content-Length")
        return (self.status, *(self.header(name) for name in names))


def turn(times: int = 2) -> None:
    """Let the loop turn, so that what was sent is seen. sleep(0) would not do: it asks no socket."""
    for _ in range(times):
        gevent.sleep(1e-6)


def wait_until(condition: Callable[[], object], what: str) -> None:
    with gevent.Timeout(LONG_WAIT_SECONDS, AssertionError(f"waited in vain: {what}")):
        while not condition():
            gevent.sleep(0.002)


def without_date(data: bytes) -> bytes:
    return DATE.sub(b"", data)


@contextmanager
def serve(
    kind: type[Ours] | type[Stock],
    application: Any,
    *,
    cfg: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    family: int = socket.AF_INET,
    address: Any = ("127.0.0.1", 0),
) -> Iterator[Site]:
    config = Config()
    knobs = Settings(**(settings or {}))
    # As gunicorn.conf.py tells it.
    told = {"keepalive": knobs.keepalive_seconds, "worker_connections": knobs.worker_connections}
    for name, value in (told | (cfg or {})).items():
        config.set(name, value)
    records = Records()
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen(2048)
    sock.setblocking(False)
    bound = sock.getsockname()
    logger = logging.getLogger("gunicorn.error")
    server = kind(config, application, knobs, sock)
    # Logger() has put gunicorn's own handlers there; what the test wants to see is what was logged.
    logger.handlers = [records]
    try:
        yield Site(server, bound, family, records)
    finally:
        server.stop()
        logger.handlers = []
