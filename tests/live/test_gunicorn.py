"""Operators' tools work as with gunicorn's gevent worker: access log, statsd, `-k` with their own file."""

import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from .conftest import PYTHON_MODULE, Server, wait_until
from .raw import Client
from .test_drain import OURS, STOCK, read_stream

Start = Callable[..., Server]

LINES = re.compile(r'^\S+ .* \[[^]]*\] ".*" \S+ \S+ ".*" ".*"$', re.MULTILINE)
MOMENT = re.compile(r"\[\d\d/[^]]*\]")
REQUESTS = [
    b'GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nUser-Agent: te"st\\\r\nReferer: http://r/?a\r\n\r\n',
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic bWU6c2VjcmV0\r\n\r\n",
    b"HEAD /large/10 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /old HTTP/1.0\r\n\r\n",
    b"GET http://h/absolute HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /sleep/fails HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n",
    b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
]


def ask(server: Server, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


def access_lines(server: Server) -> list[str]:
    """Its lines without their times, and without the length of its process id, with which it answers GET."""
    [worker] = server.workers()
    answer = re.compile(rf'("GET [^"]*" 200) {len(str(worker.pid))} ')
    lines = [MOMENT.sub("[]", line) for line in LINES.findall(server.text()) if "/healthz" not in line]
    return [answer.sub(r"\1 … ", line) for line in lines]


def test_access_log_says_what_it_says_under_the_gevent_worker(start: Start) -> None:
    servers = [start({**environ, "GREENROOM_ACCESS_LOG": "yes"}).wait_ready("/healthz") for environ in (OURS, STOCK)]

    for server in servers:
        for request in REQUESTS:
            ask(server, request)
        wait_until(lambda server=server: len(access_lines(server)) >= len(REQUESTS) - 2, "the log is written")  # type: ignore[misc]
        time.sleep(0.2)  # for a line too many
    ours, theirs = map(access_lines, servers)

    # Queries are shown by their names alone: a value may be a token.
    assert ours == [line.replace("?c=d ", "?c=… ").replace("http://r/?a", "http://r/?…") for line in theirs]
    assert '127.0.0.1 - me [] "GET / HTTP/1.1" 200 ' in "\n".join(ours)


def metrics_of(start: Start, environ: dict[str, str], sends: Callable[[Server], None]) -> Counter[str]:
    """How often which metric came for what `sends` sends, by its name and kind."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(1.0)
        host, port = collector.getsockname()
        server = start(
            environ, (*PYTHON_MODULE, "gunicorn", "--statsd-host", f"{host}:{port}", "--statsd-prefix", "shop")
        )
        server.wait_ready("/healthz")
        for _ in received(collector):
            pass
        sends(server)
        return Counter(re.sub(r":[-\d.]+\|", "|", text) for text in received(collector) if "request" in text)


def received(collector: socket.socket) -> list[str]:
    """Receive until nothing has come for a second."""
    found = []
    try:
        while True:
            found.append(collector.recv(65536).decode())
    except TimeoutError:
        return found


def test_statsd_gets_what_it_gets_from_the_gevent_worker(start: Start) -> None:
    def send(server: Server) -> None:
        for request in REQUESTS[:-2]:
            ask(server, request)

    ours, theirs = (metrics_of(start, environ, send) for environ in (OURS, STOCK))

    assert ours == theirs
    assert ours["shop.gunicorn.requests|c|@1.0"] == len(REQUESTS) - 2


@pytest.fixture
def plain_gunicorn(start: Start, tmp_path: Path) -> Callable[..., Server]:
    """gunicorn with an empty configuration file, ours as the worker class and nothing else of ours."""
    (tmp_path / "empty.conf.py").write_text("")

    def run(*options: str, **environ: str) -> Server:
        command = (*PYTHON_MODULE, "gunicorn", "-c", str(tmp_path / "empty.conf.py"), "-b", "127.0.0.1:{port}")
        environ = {"PYTHONPATH": OURS["PYTHONPATH"], **environ}
        server = start(environ, (*command, "-k", "greenroom.worker.GreenWorker", *options, "worker:app"))
        return server.wait_ready("/healthz")

    return run


def test_the_worker_class_alone_serves_under_any_configuration(plain_gunicorn: Callable[..., Server]) -> None:
    server = plain_gunicorn("--workers", "1")

    began = time.monotonic()
    with ThreadPoolExecutor(5) as clients:
        bodies = list(clients.map(lambda _: requests.get(server.url + "/sleep/2", timeout=30).text, range(5)))
    took = time.monotonic() - began
    exit_code = server.stop()

    assert set(bodies) == {bodies[0]}
    assert took < 8, "one after the other they take 10 s: the worker patches what the application imports"
    assert exit_code == 0


def test_the_worker_class_alone_recycles_without_a_gap(plain_gunicorn: Callable[..., Server]) -> None:
    server = plain_gunicorn("--workers", "2", "--max-requests", "20")
    pids: set[str] = set()

    def ask() -> bool:
        pids.add(requests.get(server.url + "/", timeout=30).text)
        return len(pids) >= 4

    wait_until(ask, "both workers are replaced, and no request fails")
    assert server.stop() == 0


def test_the_worker_class_alone_tells_an_event_stream_that_it_drains(plain_gunicorn: Callable[..., Server]) -> None:
    server = plain_gunicorn("--graceful-timeout", "3600")

    assert read_stream(server, "/events").endswith(b"\r\n0\r\n\r\n")
    assert server.wait_gone() == 0


def is_dismissed_soon(server: Server) -> bool:
    """Whether an idle connection is closed within 10 s, and not after the hour that the other setting says."""
    with Client(server.port, timeout=10.0) as client:
        client.get("/")
        try:
            return client.is_closed()
        except TimeoutError:
            return False


def test_the_command_line_says_how_long_an_idle_connection_is_kept(start: Start) -> None:
    environ = {**OURS, "GREENROOM_KEEPALIVE_SECONDS": "3600"}
    server = start(environ, (*PYTHON_MODULE, "gunicorn", "--keep-alive", "1")).wait_ready("/")

    assert is_dismissed_soon(server)


def test_the_worker_class_alone_keeps_connections_as_gunicorn_is_told(plain_gunicorn: Callable[..., Server]) -> None:
    assert is_dismissed_soon(plain_gunicorn("--keep-alive", "1"))


def test_the_worker_class_alone_takes_ours_from_the_environment(plain_gunicorn: Callable[..., Server]) -> None:
    server = plain_gunicorn("--keep-alive", "3600", GREENROOM_KEEPALIVE_SECONDS="1")

    assert is_dismissed_soon(server)
