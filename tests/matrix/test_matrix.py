"""Each set of versions does what Greenroom promises, says in one line what is off, and prints what is replaced."""

import json
import signal
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import requests

from tests.live.conftest import Server, free_port, wait_until
from tests.live.tls import HTTP2Client

from .environments import make_environment, make_wheel, run
from .sets import SETS, Set, by_environment
from .shop import CALLS, LONG_WAIT_SECONDS
from .stand import Shop, ShopOverTls, shop_over_http, shop_over_tls

# The first test of a set makes its environment.
pytestmark = [pytest.mark.nightly, pytest.mark.live, pytest.mark.timeout(900)]
BUDGET_MILLISECONDS = "1500"
MAX_REQUESTS = 20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=by_environment())
def versions(request: pytest.FixtureRequest) -> Set:
    return SETS[request.param]


@pytest.fixture(scope="module")
def python(versions: Set, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(versions, wheel, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def shop(python: Path, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shop_over_http(python, tmp_path_factory.mktemp("http") / "shop", postgres_url) as served:
        yield served


@pytest.fixture(scope="module")
def tls(
    python: Path, versions: Set, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ShopOverTls]:
    options = ("--http-protocols", "h2,h1") if versions.has_http2 else ()
    folder = tmp_path_factory.mktemp("tls") / "shop"
    with shop_over_tls(python, folder, postgres_url, *options, max_requests=MAX_REQUESTS) as served:
        yield served


def test_the_wanted_gunicorn_serves(shop: Shop, versions: Set) -> None:
    assert f"Starting gunicorn {versions.gunicorn}\n" in shop.text()


def test_answers_are_right(shop: Shop) -> None:
    assert shop.get().json()["version"] == 1
    assert requests.post(f"{shop.url}/echo", data=b"x" * 300_000, timeout=LONG_WAIT_SECONDS).content == b"x" * 300_000
    assert requests.post(shop.url, data={"a": "b"}, timeout=LONG_WAIT_SECONDS).status_code == 405
    assert requests.head(shop.url, timeout=LONG_WAIT_SECONDS).headers["Content-Length"]


def test_waits_for_an_upstream_are_in_the_loop(shop: Shop) -> None:
    """The worker has requests that call others of it: none would ever end if one of them held the loop."""
    answers = shop.asked("/upstream")

    assert answers == [{"met": True}] * len(answers)


def test_calls_without_a_session_share_connections(shop: Shop, versions: Set) -> None:
    connections = shop.get("/calls").json()

    is_pooled = "requests" not in dict(versions.off)
    assert len(set(connections)) == (1 if is_pooled else CALLS)


def test_a_call_ends_with_the_budget_of_its_request(shop: Shop) -> None:
    assert shop.get("/never-answered", **{"X-Request-Timeout-Ms": BUDGET_MILLISECONDS}).status_code == 504


def test_a_query_ends_with_the_budget_of_its_request(shop: Shop, postgres_url: str) -> None:
    assert shop.get("/never-queried", **{"X-Request-Timeout-Ms": BUDGET_MILLISECONDS}).status_code == 504

    with closing(psycopg2.connect(postgres_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def is_cancelled() -> bool:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
                " AND query LIKE '%never queried%'"
            )
            return bool(cursor.fetchone() == (0,))

        wait_until(is_cancelled, "the query is cancelled in PostgreSQL")


def test_waits_for_postgres_are_in_the_loop_and_are_named(shop: Shop, postgres_url: str) -> None:
    with closing(psycopg2.connect(postgres_url)) as holder, ThreadPoolExecutor(4) as threads:
        holder.autocommit = True
        cursor = holder.cursor()
        cursor.execute("SELECT pg_advisory_lock(7)")
        asked = [threads.submit(shop.get, "/database-lock") for _ in range(4)]

        def wait_in_postgres() -> bool:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            return bool(cursor.fetchone() == (4,))

        try:
            wait_until(wait_in_postgres, "four wait in PostgreSQL at once")
            assert shop.get().ok
            wait_until(
                lambda: '"kind": "query"' in json.dumps(shop.view()), "the page tells that they wait for queries"
            )
        finally:
            cursor.execute("SELECT pg_advisory_unlock(7)")
        answers = [future.result() for future in asked]

    assert [answer.json() for answer in answers] == [{"unlocked": True}] * 4
    assert all("query;dur=" in answer.headers["Server-Timing"] for answer in answers)


def test_waits_for_a_file_of_sqlite_are_in_the_loop(shop: Shop) -> None:
    before = shop.get("/sqlite/count").json()["sold"]
    with closing(sqlite3.connect(shop.folder / "shop.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as threads:
            selling = threads.submit(requests.post, f"{shop.url}/sqlite/sell", timeout=LONG_WAIT_SECONDS)
            wait_until(lambda: "/sqlite/sell" in json.dumps(shop.view()), "somebody waits for the file")
            assert shop.get().ok
            assert not selling.done()
            writer.execute("COMMIT")
            assert selling.result().json() == {"sold": True}

    assert shop.get("/sqlite/count").json()["sold"] == before + 1


def test_coroutines_run_side_by_side(shop: Shop) -> None:
    answers = shop.asked("/coroutine")

    assert answers == [{"met": True}] * len(answers)


def test_a_real_thread_waits_for_a_lock_of_a_request(shop: Shop) -> None:
    with ThreadPoolExecutor(2) as threads:
        holding = threads.submit(shop.get, "/lock/hold")
        wait_until(lambda: "/held" in shop.upstream.asked, "a request has the lock")
        waiting = threads.submit(shop.get, "/lock/thread")
        wait_until(lambda: "/lock/thread" in json.dumps(shop.view()), "a thread waits for it")
        assert shop.get().ok
        assert not waiting.done()
        shop.upstream.let.set()

        assert holding.result().ok
        assert waiting.result().json() == {"in_thread": True}


def test_a_view_that_fails_is_answered_with_500_and_logged_once(shop: Shop) -> None:
    assert shop.get("/fails").status_code == 500

    wait_until(lambda: "LookupError: no such tea" in shop.text(), "the error is logged")
    assert shop.text().count("LookupError: no such tea") == 1
    assert shop.get().ok


def test_what_is_no_http_is_refused(shop: Shop) -> None:
    with socket.create_connection(("127.0.0.1", shop.port), LONG_WAIT_SECONDS) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    with socket.create_connection(("127.0.0.1", shop.port), LONG_WAIT_SECONDS) as client:
        head = b"POST /echo HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        client.sendall(head)
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"tea")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_the_page_and_its_metrics_are_served(shop: Shop) -> None:
    assert 'id="request-stacks"' in requests.get(f"{shop.page}/", timeout=LONG_WAIT_SECONDS).text
    assert "greenroom_requests_total" in requests.get(f"{shop.page}/metrics", timeout=LONG_WAIT_SECONDS).text


def test_what_is_off_is_said_in_one_line(shop: Shop, versions: Set) -> None:
    for package, reason in versions.off:
        assert f"{reason}" in shop.text(), (package, shop.text())
    assert shop.text().count("unknown to us") == len(versions.off), shop.text()


def test_what_is_replaced_is_printed(python: Path, versions: Set, tmp_path: Path) -> None:
    found = json.loads(run(str(python), "-m", "greenroom", "patched", "--json", cwd=tmp_path))

    off = {each["package"]: each["reason"] for each in found if each["state"] == "off"}
    assert set(off) == {package for package, _ in versions.off}
    for package, reason in versions.off:
        assert reason in off[package]
    for each in found:
        states = {name["state"] for name in each["names"]}
        if each["state"] == "on":
            assert not states & {"left alone", "package not there"}
        else:
            assert states <= {"left alone", "package not there"}


def test_an_application_that_is_not_there_ends_the_server(python: Path, tmp_path: Path) -> None:
    """It ends for the first worker's reason: no second one is started."""
    (tmp_path / "shop.py").write_text("app = None\n")
    port = free_port()
    command = (str(python.parent / "greenroom"), "serve", "shop:missing", "--bind", f"127.0.0.1:{port}")
    environ = {"GREENROOM_OPS_BIND": "off", "PWD": str(tmp_path), "WEB_CONCURRENCY": "1"}
    server = Server(command, environ, tmp_path / "server.log", port, cwd=tmp_path)

    status = server.wait_gone()

    assert status != 0
    assert server.text().count("the application can't be served") == 1
    assert "Traceback" not in server.text()


def test_tls_is_served_while_workers_are_replaced(tls: ShopOverTls) -> None:
    seen: set[int] = set()

    def is_replaced() -> bool:
        with requests.Session() as session:
            answers = [tls.get(session) for _ in range(3)]
        assert all(answer.ok for answer in answers)
        seen.update(answer.json()["pid"] for answer in answers)
        return len(seen) > 2

    wait_until(is_replaced, f"workers are replaced after {MAX_REQUESTS} requests:\n{tls.text()}")


def negotiated(tls: ShopOverTls) -> str | None:
    """The protocol that a client gets which would like HTTP/2."""
    context = ssl.create_default_context(cafile=tls.certificate)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", tls.port), LONG_WAIT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        return client.selected_alpn_protocol()


def test_http2_is_served_where_gunicorn_has_it(tls: ShopOverTls, versions: Set) -> None:
    if not versions.has_http2:
        assert negotiated(tls) is None
        return
    with HTTP2Client(tls.port, tls.certificate) as client:
        streams = [client.open("/") for _ in range(4)]
        client.finish()

    assert [client.heads[stream][b":status"] for stream in streams] == [b"200"] * 4


def test_a_reload_loses_no_request_and_a_stop_is_quick(shop: Shop) -> None:
    """The last of this server."""
    code = (shop.folder / "shop.py").read_text()
    (shop.folder / "shop.py").write_text(code.replace("VERSION = 1", "VERSION = 2"))
    is_over = threading.Event()

    def ask() -> list[int]:
        statuses = []
        with requests.Session() as session:
            while not is_over.is_set():
                statuses.append(session.get(shop.url, timeout=LONG_WAIT_SECONDS).status_code)
                statuses.append(shop.get().status_code)
        return statuses

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        shop.signal(signal.SIGHUP)
        wait_until(lambda: shop.get().json()["version"] == 2, f"a reload:\n{shop.text()}")
        wait_until(lambda: len(shop.workers()) == 1, "the old worker has gone")
        is_over.set()
        statuses = {status for each in asking for status in each.result()}

    with requests.Session() as idle:
        idle.get(shop.url, timeout=LONG_WAIT_SECONDS)
        began = time.monotonic()
        status = shop.stop()

    assert statuses == {200}
    assert status == 0
    assert "Traceback" not in shop.text().partition("Handling signal: hup")[2]
    assert time.monotonic() - began < 20
    first = [shop.hooks().index(name) for name in ("on_starting", "when_ready", "pre_fork", "post_fork", "on_reload")]
    assert first == sorted(first)
    assert shop.hooks()[-1] == "on_exit"
    wanted = {"when_ready", "pre_fork", "post_fork", "post_worker_init", "pre_request", "post_request", "on_reload"}
    assert wanted | {"worker_exit", "child_exit"} <= set(shop.hooks())
