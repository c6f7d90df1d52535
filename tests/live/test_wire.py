"""GreenWorker as a process: what one request leaves to the next, how views fail, and large bodies.

The wire itself, byte by byte, is tests/greenroom/worker; here is what only a patched process can show. Where the stock
gevent worker fails, it is run as well, and expected to fail.
"""

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from .conftest import PYTHON_MODULE, Server, free_port, wait_until

HERE = Path(__file__).parent
STOCK_FAILS = (pytest.mark.nightly, pytest.mark.xfail(strict=True, reason="what the stock gevent worker does wrong"))
OURS_AND_STOCK = [pytest.param("greenroom"), pytest.param("gevent", marks=STOCK_FAILS)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """One process for each worker class, of one worker, started when first asked for."""
    running: dict[str, Server] = {}

    def of(worker_class: str) -> Server:
        if worker_class not in running:
            folder = tmp_path_factory.mktemp(worker_class)
            port = free_port()
            environ = {
                "GREENROOM_BIND": f"127.0.0.1:{port},[::1]:{port},unix:{folder}/socket",
                "GREENROOM_WORKER_CLASS": worker_class,
                "GREENROOM_KEEPALIVE_SECONDS": "60",
                "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "1",
                "WEB_CONCURRENCY": "1",
                "WSGI_APP": "wire:app",
                "PYTHONPATH": str(HERE / "apps"),
                "INSTANCE_PATH": str(folder / "instance"),
            }
            running[worker_class] = Server((*PYTHON_MODULE, "gunicorn"), environ, folder / "server.log", port)
            running[worker_class].wait_ready()
        return running[worker_class]

    yield of
    for server in running.values():
        server.stop()
        print(f"--- {server.log.name}\n{server.text()}")


@pytest.fixture
def server(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Server:
    return servers(getattr(request, "param", "greenroom"))


@contextmanager
def connect(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.connect()
    with closing(connection):
        yield connection


def get(connection: http.client.HTTPConnection, path: str) -> Any:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("server", OURS_AND_STOCK, indirect=True)
def test_second_request_of_a_connection_sees_nothing_of_the_first(server: Server) -> None:
    with connect(server) as connection:
        get(connection, "/who/alice")

        status, seen = get(connection, "/who/bob")

    assert (status, seen) == (200, b'{"context":"nobody","thread":"nobody"}\n')


@pytest.mark.parametrize(
    ("server", "error"),
    [
        ("greenroom", "SystemExit"),
        ("greenroom", "GreenletExit"),
        ("greenroom", "KeyboardInterrupt"),
        ("greenroom", "Timeout"),
        pytest.param("gevent", "SystemExit", marks=STOCK_FAILS),
        pytest.param("gevent", "GreenletExit", marks=STOCK_FAILS),
    ],
    indirect=["server"],
)
def test_exception_that_is_no_exception_is_a_500_with_a_log_line(server: Server, error: str) -> None:
    before = requests.get(server.url + "/teardowns", timeout=10).json()["count"]
    logged = server.text().count("Error handling request")

    answer = requests.get(f"{server.url}/raise/{error}", timeout=3)

    assert answer.status_code == 500
    assert answer.headers["Connection"] == "close"
    wait_until(lambda: server.text().count("Error handling request") == logged + 1, "it is logged", 5)
    after = requests.get(server.url + "/teardowns", timeout=10).json()["count"]
    assert after == before + 2  # the failing one, and ours


@pytest.mark.parametrize("error", ["SystemExit", "GreenletExit", "KeyboardInterrupt", "Timeout", "ValueError"])
def test_exception_within_a_body_breaks_the_connection(server: Server, error: str) -> None:
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(f"{server.url}/raise-late/{error}", timeout=10)

    assert requests.get(server.url + "/readyz", timeout=10).ok


@pytest.mark.parametrize("server", ["greenroom", "gevent"], indirect=True)
@pytest.mark.parametrize("how", ["ends", "raises", "lasts"])
def test_streamed_body_has_its_context_and_gives_it_back(server: Server, how: str) -> None:
    with connect(server) as connection:
        connection.request("GET", f"/stream/{how}")
        answer = connection.getresponse()
        assert answer.read(8) == b"/stream/", "the context is there while the body is made"
        if how == "raises":
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                answer.read()
        elif how == "ends":
            answer.read()
        answer.close()

    def left() -> Any:
        return requests.get(server.url + "/sessions", timeout=10).json()

    wait_until(lambda: left() == {"out": 0, "is_context_left": False}, f"nothing is left: {left()}")


def test_upload_in_chunks_costs_no_memory(server: Server) -> None:
    [worker] = server.workers()
    before = worker.memory_info().rss
    size = 200_000_000
    most = 0

    def parts() -> Iterator[bytes]:
        nonlocal most
        part = b"x" * 1_000_000
        for number in range(size // len(part)):
            if number % 10 == 0:
                most = max(most, worker.memory_info().rss)
            yield part

    answer = requests.post(server.url + "/upload", data=parts(), timeout=60)  # in chunks

    assert answer.json() == {"size": size}
    assert most - before < 30_000_000


def test_upload_with_a_length_costs_no_memory(server: Server) -> None:
    [worker] = server.workers()
    before = worker.memory_info().rss
    size = 200_000_000
    most = 0
    with connect(server) as connection:
        connection.putrequest("POST", "/upload")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        for _ in range(200):
            connection.send(b"x" * 1_000_000)
            most = max(most, worker.memory_info().rss)

        assert connection.getresponse().read() == b'{"size":200000000}\n'
    assert most - before < 30_000_000


def test_client_that_does_not_send_fast_is_not_read_ahead(server: Server) -> None:
    """Back-pressure: while the application does not read, the kernel's buffers are all that fills."""
    [worker] = server.workers()
    before = worker.memory_info().rss
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.5) as sock:
        sock.sendall(b"POST /slow/sender HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        sent = 0
        with suppress(TimeoutError):
            while sent < 100_000_000:
                sent += sock.send(b"x" * 100_000)

        assert sent < 50_000_000
        assert worker.memory_info().rss - before < 20_000_000


def test_download_costs_no_memory(server: Server) -> None:
    [worker] = server.workers()
    before = worker.memory_info().rss
    most = size = 0
    with requests.get(server.url + "/large", stream=True, timeout=60) as answer:
        for part in answer.iter_content(1_000_000):
            size += len(part)
            most = max(most, worker.memory_info().rss)

    assert size == 300_000_000
    assert most - before < 30_000_000


def test_every_bind_is_served(server: Server) -> None:
    found = []
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", server.port)),
        (socket.AF_INET6, ("::1", server.port)),
        (socket.AF_UNIX, str(server.log.parent / "socket")),
    ):
        with socket.socket(family) as sock:
            sock.settimeout(10)
            sock.connect(address)
            sock.sendall(b"GET /environ HTTP/1.1\r\nHost: h:81\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := sock.recv(65_536):
                answer += data
            found.append(answer)

    assert [answer.startswith(b"HTTP/1.1 200 OK") for answer in found] == [True] * 3
    assert b'"SERVER_NAME":"127.0.0.1"' in found[0]
    assert b'"REMOTE_ADDR":"::1"' in found[1]
    assert b'"SERVER_NAME":"h"' in found[2]


SAME = {
    "GET": b"GET /readyz?a=b HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD": b"HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1.0": b"GET /readyz HTTP/1.0\r\n\r\n",
    "HTTP/1.0 kept": b"GET /readyz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "404": b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
    "405": b"DELETE /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
    "an error": b"GET /raise/ValueError HTTP/1.1\r\nHost: x\r\n\r\n",
    "a body": b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde",
    "chunks": b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "three at once": b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "nonsense": b"\x16\x03\x01\r\n\r\n",
    "smuggling": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
}


# The moment, the order of a set, and what insight adds to ours.
NOT_COMPARED = (b"Date:", b"Allow:", b"X-Request-ID:", b"Server-Timing:")


@pytest.mark.parametrize("data", SAME.values(), ids=SAME)
def test_same_bytes_get_the_same_answer_as_from_the_stock_worker(servers: Callable[[str], Server], data: bytes) -> None:
    answers = []
    for worker_class in ("greenroom", "gevent"):
        with socket.create_connection(("127.0.0.1", servers(worker_class).port), timeout=10) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while part := sock.recv(65_536):
                answer += part
        answers.append([line for line in answer.split(b"\r\n") if not line.startswith(NOT_COMPARED)])

    assert answers[0] == answers[1]
