"""A worker whose requests wait for an upstream."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.greenroom.waits.http.upstream import Received, Upstream

from .conftest import LONG_WAIT_SECONDS, Server

BUDGET_MS = 1000
CALLS = 200
CONNECTIONS = 10


@contextmanager
def an_upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.on("/silent", lambda sock, request: bool(sock.recv(1)))
    try:
        yield upstream
    finally:
        upstream.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with an_upstream() as made:
        yield made


@pytest.fixture
def server(start: Callable[..., Server], upstream: Upstream) -> Server:
    return start(
        {
            "WSGI_APP": "tests.live.apps.upstream:app",
            "WEB_CONCURRENCY": "1",
            "GREENROOM_WORKER_CLASS": "greenroom",
            "GREENROOM_COMPANION": "no",
            "GREENROOM_UPSTREAM_CONNECTIONS": str(CONNECTIONS),
            "GREENROOM_ROUTE_BUDGETS": f"/session/silent={BUDGET_MS}, /stubborn={BUDGET_MS}",
            "UPSTREAM_URL": upstream.url,
        }
    ).wait_ready("/bare/ready")


def test_all_requests_of_a_worker_share_its_connections(server: Server, upstream: Upstream) -> None:
    def ask(number: int) -> Any:
        way = "session" if number % 2 else "bare"
        answer = requests.get(f"{server.url}/{way}/{number}", timeout=LONG_WAIT_SECONDS)
        assert answer.status_code == 200, answer.text
        return answer.json()["upstream"]["target"]

    with ThreadPoolExecutor(20) as pool:
        targets = list(pool.map(ask, range(CALLS)))

    assert targets == [f"/{number}" for number in range(CALLS)]
    assert upstream.connections < CALLS / 2


@pytest.mark.parametrize("way", ["session", "stubborn"])
def test_a_silent_upstream_costs_a_request_its_budget_and_no_more(way: str, server: Server, upstream: Upstream) -> None:
    started = time.monotonic()
    answer = requests.get(f"{server.url}/{way}/silent", timeout=LONG_WAIT_SECONDS)

    assert answer.status_code == 504
    assert time.monotonic() - started < 30
    told: Received = next(each for each in upstream.requests if each.target == "/silent")
    assert 0 < int(told.fields["x-request-timeout-ms"]) <= BUDGET_MS
    assert requests.get(f"{server.url}/bare/after", timeout=LONG_WAIT_SECONDS).json()["upstream"]["target"] == "/after"
