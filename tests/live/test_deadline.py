"""Requests that are cut, in a real worker, in the middle of real waits."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from benchmarks import recovery
from benchmarks.deadlines import SEVEN, fuzz, precision
from benchmarks.services import Bench, bench_running

from .conftest import ROOT, Server, wait_until

APPS = Path(__file__).parent / "apps"
TLS = ROOT / "tests" / "app" / "api" / "tls"
# The waits last a minute; a busy machine adds less than this to the budget.
MOST_LATE_MILLISECONDS = 10_000
SOON = {"X-Request-Timeout-Ms": "300"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Bench]:
    """Shared: do it no harm."""
    settings = {"GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "6"}
    with bench_running(tmp_path_factory.mktemp("deadline"), postgres_url, settings) as running:
        yield running
        print(running.log.read_text(errors="replace")[-20_000:])


@pytest.fixture(scope="module")
def with_loops(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Bench]:
    """Its requests go on for ever."""
    settings = {"GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "2", "GREENROOM_CLEAN_UP_SECONDS": "1"}
    with bench_running(tmp_path_factory.mktemp("loops"), postgres_url, settings) as running:
        yield running
        print(running.log.read_text(errors="replace")[-20_000:])


def test_each_kind_of_wait_ends_with_the_budget(bench: Bench) -> None:
    late_by = precision(bench, rounds=2)

    assert set(SEVEN) <= set(late_by)
    assert {kind: late for kind, late in late_by.items() if late[-1] > MOST_LATE_MILLISECONDS} == {}


LOOPS = ["sleep", "lock", "queue", "process", "pool", "query", "upstream", "redis", "thread"]


@pytest.fixture(scope="module")
def statuses_of_loops(with_loops: Bench) -> dict[str, int]:
    """All are asked for at the same time, since each is named only seconds after its end."""

    def ask(kind: str) -> int:
        return with_loops.get(f"/retry/{kind}", SOON, timeout=MOST_LATE_MILLISECONDS / 1000)[0]

    with ThreadPoolExecutor(len(LOOPS)) as clients:
        return dict(zip(LOOPS, clients.map(ask, LOOPS), strict=True))


@pytest.mark.parametrize("kind", LOOPS)
def test_loop_that_swallows_its_end_harms_nobody_and_is_named(
    with_loops: Bench, statuses_of_loops: dict[str, int], kind: str
) -> None:
    assert statuses_of_loops[kind] == 504
    wait_until(lambda: f"GET /retry/{kind} goes on waiting" in with_loops.log.read_text(), "it is named")
    assert with_loops.get("/ready")[0] == 200


def test_client_that_leaves_ends_its_query_in_the_database(bench: Bench) -> None:
    with socket.create_connection(("127.0.0.1", bench.port)) as client:
        client.sendall(b"GET /wait/query HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(bench.active_queries, "the query runs")

    wait_until(lambda: not bench.active_queries(), "the query is cancelled")
    wait_until(lambda: not bench.state()["checked_out"], "its connection is back in the pool")


def test_queries_of_requests_that_are_over_end_in_the_database(bench: Bench) -> None:
    after = recovery.active_after(bench, rounds=2)

    assert {way for way in recovery.WAYS if after[way][-1] <= MOST_LATE_MILLISECONDS} == set(recovery.WAYS)


@pytest.mark.parametrize("name", ["upstream hangs", "DNS hangs"])
def test_full_service_is_back_after_a_fault(name: str, bench: Bench) -> None:
    """PostgreSQL's faults are in test_database_faults.py; the targets are in benchmarks.deadlines."""
    service, fault = recovery.faults(bench, None)[name]

    seconds = recovery.recovery(bench, service, fault, seconds=1.5)

    assert seconds < recovery.AFTERWARDS_SECONDS - 0.5, "it went on failing"


def test_computing_cannot_be_cut_and_is_reported(bench: Bench) -> None:
    status, _ = bench.get("/spin/1800", SOON)

    assert status == 504
    wait_until(lambda: "GET /spin/1800 ended" in bench.log.read_text(), "it is reported")


def test_requests_cut_anywhere_leave_nothing_behind_and_mix_nothing_up(bench: Bench) -> None:
    """Deadlines pass in queries, replies, commits and teardowns; see benchmarks.deadlines for ten thousand of them."""
    found = fuzz(bench, requests=200, clients=20, is_reloading=False, seed=4)

    assert found.problems == []
    assert found.outcomes["deadline: 504"] > 20
    assert found.outcomes["leave: left"] > 20
    assert found.outcomes["finish: 200"] > 20


def test_request_that_outlasts_the_grace_of_a_stop_is_answered_503(start: Callable[..., Server]) -> None:
    environ = worker_app("greenroom", GREENROOM_GRACEFUL_TIMEOUT_SECONDS="4")
    server = start(environ).wait_ready("/")

    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        client.sendall(b"GET /sleep/60 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.5)  # until it runs
        server.signal(15)
        answer = client.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 503 "), answer
    assert server.wait_gone() == 0
    assert "1 requests are cut: the worker has to stop" in server.text()


def test_request_over_tls_has_a_budget(start: Callable[..., Server]) -> None:
    files = {
        "GREENROOM_TLS_CERTIFICATE": str(TLS / "certificate.pem"),
        "GREENROOM_TLS_KEY": str(TLS / "key.pem"),
        "GREENROOM_ROUTE_BUDGETS": "/sleep=300",
    }
    server = start(worker_app("greenroom", **files))
    context = ssl._create_unverified_context()

    def ask(path: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), 60) as plain:
            with context.wrap_socket(plain, suppress_ragged_eofs=True) as client:
                client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: client.recv(65_536), b""))

    def is_ready() -> bool:
        try:
            return ask(b"/").startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

    wait_until(is_ready, f"the server is ready:\n{server.text()}")
    answer = ask(b"/sleep/60")

    assert answer.startswith(b"HTTP/1.1 504 "), answer
    assert b"did not come in time." in answer, answer
    assert "Traceback" not in server.text()


def test_gunicorns_own_worker_stays_as_it_is(start: Callable[..., Server]) -> None:
    environ = worker_app("gevent", GREENROOM_REQUEST_BUDGET_MILLISECONDS="100")
    server = start(environ).wait_ready("/")

    answer = requests.get(server.url + "/sleep/0.5", headers={"X-Request-Timeout-Ms": "100"}, timeout=30)

    assert answer.status_code == 200


def worker_app(worker_class: str, **environ: str) -> dict[str, str]:
    return {
        "PYTHONPATH": str(APPS),
        "WSGI_APP": "worker:app",
        "WEB_CONCURRENCY": "1",
        "GREENROOM_WORKER_CLASS": worker_class,
        "GREENROOM_OPS_BIND": "off",
        **environ,
    }
