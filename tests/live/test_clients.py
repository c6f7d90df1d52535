"""Clients that are slow, idle, many or gone, and what the others notice of them: nothing."""

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import requests

from .conftest import Server, wait_until

APPS = str(Path(__file__).parent / "apps")
STOCK_FAILS = (pytest.mark.nightly, pytest.mark.xfail(strict=True, reason="what the stock gevent worker does wrong"))
OURS_AND_STOCK = [pytest.param("greenroom"), pytest.param("gevent", marks=STOCK_FAILS)]
ASK = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD_END = b"\r\n\r\n"


@pytest.fixture
def serve(start: Callable[..., Server]) -> Callable[..., Server]:
    def run(worker_class: str, environ: Mapping[str, str]) -> Server:
        common = {"WSGI_APP": "wire:app", "PYTHONPATH": APPS, "WEB_CONCURRENCY": "1"}
        return start({**common, "GREENROOM_WORKER_CLASS": worker_class, **environ}).wait_ready()

    return run


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for some thousand sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 10_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(server: Server, timeout: float = 30.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=timeout)


def answer_of(sock: socket.socket, data: bytes = ASK) -> bytes:
    """The answer to `data`, whose body must be short; b"" when the server closed."""
    sock.sendall(data)
    answer = b""
    while not answer.endswith(b"}\n"):
        part = sock.recv(65_536)
        if not part:
            break
        answer += part
    return answer


def rest_of(sock: socket.socket) -> bytes:
    answer = b""
    while part := sock.recv(65_536):
        answer += part
    return answer


@pytest.mark.parametrize("worker_class", OURS_AND_STOCK)
def test_new_client_is_served_although_idle_ones_have_all_connections(
    serve: Callable[..., Server], worker_class: str
) -> None:
    limits = {"GREENROOM_WORKER_CONNECTIONS": "3", "GREENROOM_KEEPALIVE_SECONDS": "60"}
    server = serve(worker_class, limits)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(3)]
        for sock in idle:
            assert answer_of(sock).startswith(b"HTTP/1.1 200 OK")

        with connect(server, timeout=3) as new:
            assert answer_of(new).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("worker_class", OURS_AND_STOCK)
def test_stalled_body_ends_in_an_answer_and_not_never(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(worker_class, {"GREENROOM_BODY_TIMEOUT_SECONDS": "1", "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "1"})
    with connect(server, timeout=6) as sock:
        sock.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")

        answer = rest_of(sock)

    # An application that lets the TimeoutError through answers 408; Flask makes its 500 of every exception.
    assert answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 500 "))
    assert b"Connection: close\r\n" in answer


@pytest.mark.parametrize("worker_class", OURS_AND_STOCK)
def test_slow_head_ends_in_408(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(worker_class, {"GREENROOM_HEAD_TIMEOUT_SECONDS": "1", "GREENROOM_KEEPALIVE_SECONDS": "1"})
    with connect(server, timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHo")

        assert rest_of(sock).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_thousand_slow_clients_change_nothing_for_the_others(serve: Callable[..., Server], many_files: None) -> None:
    server = serve("greenroom", {"GREENROOM_HEAD_TIMEOUT_SECONDS": "3600", "GREENROOM_WORKER_CONNECTIONS": "800"})
    [worker] = server.workers()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(1000)]
        before = worker.memory_info().rss
        for sock in slow:
            with contextlib.suppress(ConnectionError):  # the first ones have made room for the last
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        answers = [requests.get(server.url + "/readyz", timeout=10).status_code for _ in range(100)]
        with connect(server) as kept:
            answers += [200 if answer_of(kept).startswith(b"HTTP/1.1 200") else 0 for _ in range(100)]
        for sock in slow:
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"and slower ")

        assert answers == [200] * 200
        assert worker.memory_info().rss - before < 10_000_000
        wait_until(lambda: worker.num_fds() < 900, "the refused ones are let go")


def test_client_that_leaves_is_noticed_while_its_request_runs(serve: Callable[..., Server]) -> None:
    # As it is by default, the request would just end.
    server = serve("greenroom", {"GREENROOM_CLIENT_LEFT_ENDS": "off"})
    began = time.monotonic()
    with connect(server) as sock:
        sock.sendall(b"GET /slow/early-bird HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)  # it runs; leaving before would be noticed as well

    wait_until(lambda: requests.get(server.url + "/gone", timeout=10).json() == ["early-bird"], "it was noticed", 15)

    assert time.monotonic() - began < 15  # and not after the 20 s that the view would have run


def test_slow_reader_is_given_up(serve: Callable[..., Server]) -> None:
    server = serve("greenroom", {"GREENROOM_SEND_TIMEOUT_SECONDS": "1"})
    [worker] = server.workers()
    with connect(server) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.recv(100)
        wait_until(lambda: len(worker.net_connections("tcp")) == 1, "only the listener is left", 15)

        with pytest.raises(ConnectionError):
            rest_of(sock)
