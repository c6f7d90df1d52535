"""A real worker that is asked for more than it can do."""

import functools
import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
import requests

from benchmarks.client import Generator, Load
from benchmarks.openloop import OpenLoop, Phase
from greenroom.worker.connection import TOGETHER_SECONDS

from .conftest import Server, wait_until

APP = "tests.live.apps.overload:application"
CPU_SECONDS = 0.01


@pytest.fixture
def serve(start: Callable[..., Server]) -> Callable[..., Server]:
    return functools.partial(run, start)


def run(start: Callable[..., Server], worker_class: str = "greenroom", **environ: str) -> Server:
    settings = {
        "WSGI_APP": APP,
        "WEB_CONCURRENCY": "1",
        "GREENROOM_COMPANION": "no",
        "GREENROOM_WORKER_CLASS": worker_class,
        **environ,
    }
    return start(settings).wait_ready("/healthz")


FULL = {"GREENROOM_LIMIT_REQUESTS": "1", "GREENROOM_QUEUE_LIMIT_REQUESTS": "0"}


@contextmanager
def in_flight(server: Server, path: str) -> Iterator[None]:
    """A request under way that nobody waits for."""
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        # Connections are accepted in their order, and this one is never turned away: the request has been read before.
        assert requests.get(server.url + "/healthz", timeout=30).status_code == 200
        yield


@pytest.fixture
def full(share: Callable[..., Server]) -> Server:
    """A server with one place and no line, shared; the place is free."""
    server = run(share, **FULL, GREENROOM_PRIORITY_PATHS="/important")
    wait_until(lambda: requests.get(server.url + "/work", timeout=30).status_code == 200, "the place is free")
    return server


def connect(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)


def test_a_request_too_many_is_told_when_to_come_back_and_keeps_its_connection(serve: Callable[..., Server]) -> None:
    server = serve(**FULL)
    client = connect(server)
    client.connect()
    first_socket = client.sock

    with closing(client), in_flight(server, "/work?wait=30000"):
        answers = []
        for method in ("GET", "HEAD", "GET"):
            client.request(method, "/work")
            answer = client.getresponse()
            answers.append((answer.status, answer.getheader("Retry-After"), len(answer.read())))
        is_same_socket = client.sock is first_socket
        health = requests.get(server.url + "/healthz", timeout=30)
    wait_until(lambda: requests.get(server.url + "/work", timeout=30).status_code == 200, "the place is free again")

    assert [answer[:2] for answer in answers] == [(503, "1")] * 3
    assert answers[0][2] > 0
    assert answers[1][2] == 0
    assert is_same_socket
    assert health.status_code == 200
    wait_until(lambda: server.text().count("requests turned away with 503") == 1, "the log says so, in one line")


def test_a_named_path_is_never_turned_away(full: Server) -> None:
    with in_flight(full, "/work?wait=30000"):
        statuses = {
            path: requests.get(full.url + path, timeout=30).status_code
            for path in ("/important", "/important/too", "/importantly")
        }

    assert statuses == {"/important": 200, "/important/too": 200, "/importantly": 503}


@pytest.mark.parametrize(
    ("head", "is_kept"),
    [
        (b"POST /work HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", True),
        (b"POST /work HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n" + b"x" * 1000, False),
        (b"POST /work HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n", False),
        (b"GET /work HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
        (b"GET /work HTTP/1.0\r\n\r\n", False),
        (b"GET http://x/work HTTP/1.1\r\nHost: x\r\n\r\n", True),
    ],
    ids=["body is here", "body is not here", "chunked", "close", "1.0", "absolute"],
)
def test_a_refusal_reads_no_body_and_keeps_the_connection_only_where_it_can(
    head: bytes, is_kept: bool, full: Server
) -> None:
    with in_flight(full, "/work?wait=30000"), socket.create_connection(("127.0.0.1", full.port)) as sock:
        sock.settimeout(30)
        sock.sendall(head)
        received = sock.recv(65_536)
        if is_kept:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        following = sock.recv(65_536)

    assert received.startswith(b"HTTP/1.1 503 ")
    assert (b"Connection: keep-alive" in received) == is_kept
    assert (b"Connection: close" in received) != is_kept
    assert following[:12] == (b"HTTP/1.1 200" if is_kept else b"")


def test_who_stands_in_line_is_served_when_its_turn_comes(serve: Callable[..., Server]) -> None:
    server = serve(GREENROOM_LIMIT_REQUESTS="1")
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(requests.get(server.url + "/work?wait=50", timeout=30).status_code)

    with in_flight(server, "/work?wait=500"):
        threads = [threading.Thread(target=ask) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert statuses == [200] * 10


def test_hundreds_of_requests_that_only_wait_are_all_served(serve: Callable[..., Server]) -> None:
    server = serve()
    # 200 a second that wait for a second: 200 under way at any time, and hardly any work.
    load = OpenLoop("127.0.0.1", server.port, "/work?wait=1000", [Phase(200.0, 4.0)], give_up_seconds=20.0)

    outcomes = load.run().outcomes

    assert Counter(one.result for one in outcomes) == {200: len(outcomes)}


def test_sixty_users_without_think_time_are_all_served(serve: Callable[..., Server]) -> None:
    """They make a line of more than a second, and each gets its turn in it."""
    server = serve()
    load = Load("127.0.0.1", server.port, "/work?cpu=20", b"done\n", 60, 0.5, 5.0, 60.0)

    completed = 0

    def have_all_had_a_turn() -> bool:
        nonlocal completed
        sample = Generator(load).run()
        assert not sample.errors
        completed += sample.completed
        return completed > 60

    wait_until(have_all_had_a_turn, "each is served; once is enough on a machine that has time")
    assert "overload:" not in server.text()


def test_a_client_that_leaves_the_line_costs_no_work(serve: Callable[..., Server]) -> None:
    server = serve(GREENROOM_LIMIT_REQUESTS="1")
    with in_flight(server, "/work?wait=4000"):  # longer than the others wait for their turn
        for _ in range(5):
            with in_flight(server, "/work?wait=10000"):
                time.sleep(2 * TOGETHER_SECONDS)  # else its end would belong to its request
        began = time.monotonic()
        status = requests.get(server.url + "/work", timeout=30).status_code

    assert status == 200
    assert time.monotonic() - began < 9, "none of those who left was run"


def test_a_budget_that_ends_in_line_is_504(serve: Callable[..., Server]) -> None:
    server = serve(GREENROOM_LIMIT_REQUESTS="1", GREENROOM_ROUTE_BUDGETS="/late=700")
    with in_flight(server, "/work?wait=5000"):
        began = time.monotonic()
        status = requests.get(server.url + "/late", timeout=30).status_code
        took = time.monotonic() - began

    assert status == 504
    assert 0.6 < took < 4


def test_admission_can_be_switched_off(serve: Callable[..., Server]) -> None:
    server = serve(GREENROOM_ADMISSION="off", GREENROOM_LIMIT_REQUESTS="1")
    with in_flight(server, "/work?wait=20000"):
        assert requests.get(server.url + "/work", timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("workers", "keeps_connections"), [pytest.param("1", True, marks=pytest.mark.nightly), ("2", False)]
)
def test_overload_leaves_good_answers_and_turns_nobody_away(
    workers: str, keeps_connections: bool, serve: Callable[..., Server]
) -> None:
    """On the stock worker nobody is answered in time: all wait, all give up, and it works for clients who are gone."""
    server = serve(WEB_CONCURRENCY=workers)
    warm_up, level, after = Phase(20.0, 2.0), Phase(4 / CPU_SECONDS, 4.0), Phase(20.0, 8.0)
    health: list[float] = []
    is_over = threading.Event()

    def check_health() -> None:
        while not is_over.wait(0.2):
            began = time.monotonic()
            assert requests.get(server.url + "/healthz", timeout=30).status_code == 200
            health.append(time.monotonic() - began)

    checker = threading.Thread(target=check_health)
    checker.start()
    path = f"/work?cpu={CPU_SECONDS * 1000:g}&wait=50"
    phases = [warm_up, level, after]
    run = OpenLoop("127.0.0.1", server.port, path, phases, keeps_connections=keeps_connections).run()
    is_over.set()
    checker.join()

    slot = run.between(3.0, 6.0)
    recovered = run.between(11.0, 14.0)  # a slow machine takes longer over those who still wait
    assert slot.good_per_second >= 10  # a machine that does other things besides gives the worker little
    assert slot.count("gave up") > 0
    assert slot.count(200) + slot.count("gave up") == len(slot.outcomes), "nobody is turned away"
    assert recovered.good_ratio >= 0.9
    assert len(health) > 20
    assert server.text().count("overload:") <= 2 * int(workers)
