"""Every trouble of a list, staged for real; the page names each within a minute. More are in test_night_further.

    python -m pytest -m nightly tests/live/test_night.py [-rP to see all that the page said]

Each test says what an operator has to read to know the cause: the object, its holder or line, and a useful next step.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from .conftest import free_port
from .night import Night, limited_files, night, peer, postgres
from .staging import clients, slow_upstream

pytestmark = pytest.mark.nightly
LINE = r"tests/live/apps/night\.py:\d+"
OK = ("/ok", 2, 0.1)
GOOD = """
from flask import Flask
app = Flask(__name__)
@app.get("/ok")
def ok(): return {"status": "ok"}
"""


def test_postgresql_answers_no_longer(tmp_path: Path) -> None:
    with postgres(tmp_path) as server, night(tmp_path, {"NIGHT_DATABASE_URL": server.url("postgres")}) as stage:
        with clients(stage.url, ("/query", 20, 0.1), OK):
            time.sleep(5)
            server.send(signal.SIGSTOP)
            stage.is_named(rf"PostgreSQL at 127.0.0.1:{server.port} answers nobody since [\d.]+ s", r"/query")
    # More connections would be more load on it.
    assert not any("pool_size" in said or "aise" in said for said in stage.said), stage.said


def test_postgresql_is_down(tmp_path: Path) -> None:
    with postgres(tmp_path) as server, night(tmp_path, {"NIGHT_DATABASE_URL": server.url("postgres")}) as stage:
        with clients(stage.url, ("/query", 10, 0.1), OK):
            time.sleep(5)
            server.stop()
            stage.is_named(rf"PostgreSQL at 127.0.0.1:{server.port} refuses connections", r"/query")


def test_postgresql_has_no_connection_left(tmp_path: Path) -> None:
    with postgres(tmp_path, slots=12) as server:
        environ = {"NIGHT_DATABASE_URL": server.url("postgres"), "NIGHT_POOL": "30"}
        with night(tmp_path, environ) as stage, clients(stage.url, ("/long-query", 40, 0.05), OK):
            stage.is_named(rf"PostgreSQL at 127.0.0.1:{server.port} is full", r"/long-query")


def test_upstream_answers_500_half_of_the_time(tmp_path: Path) -> None:
    with peer("half") as upstream, night(tmp_path, {"UPSTREAM_URL": upstream.url}) as stage:
        with clients(stage.url, ("/up/20", 8, 0.1), OK):
            stage.is_named(rf"127.0.0.1:{upstream.port} answers 500 to [45]\d% of its requests", LINE)


def test_upstream_refuses_and_is_asked_again(tmp_path: Path) -> None:
    port = free_port()
    with night(tmp_path, {"UPSTREAM_URL": f"http://127.0.0.1:{port}"}) as stage:
        with clients(stage.url, ("/retry", 4, 0.2), OK):
            stage.is_named(rf"127.0.0.1:{port} refuses connections", r"4 calls for each request", LINE)


def test_redis_hangs(tmp_path: Path) -> None:
    with peer("silent") as upstream, night(tmp_path, {"NIGHT_REDIS_URL": f"redis://{upstream.url[7:]}"}) as stage:
        with clients(stage.url, ("/redis", 8, 0.1), OK):
            stage.is_named(rf"Redis at 127.0.0.1:{upstream.port} answers nobody", r"/redis")


def test_redis_is_dead(tmp_path: Path) -> None:
    port = free_port()
    with night(tmp_path, {"NIGHT_REDIS_URL": f"redis://127.0.0.1:{port}"}) as stage:
        with clients(stage.url, ("/redis", 4, 0.2), OK):
            stage.is_named(rf"Redis at 127.0.0.1:{port} refuses connections", r"/redis")


def test_exception_in_a_route(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/price", 3, 0.3), OK):
        stage.is_named(r"KeyError: 'price'", LINE, r"since \d\d:\d\d:\d\d")


@pytest.mark.parametrize(
    ("path", "words"),
    [("/full", r"The disk is full \(ENOSPC\)"), ("/memory", r"Memory is used up")],
)
def test_machine_is_at_a_limit(tmp_path: Path, path: str, words: str) -> None:
    with night(tmp_path) as stage, clients(stage.url, (path, 2, 0.3), OK):
        stage.is_named(words, LINE)


def test_nobody_reads_the_log(tmp_path: Path) -> None:
    """The log goes to a pipe that is full: a log shipper that hangs."""
    script = tmp_path / "pipe.sh"
    script.write_text('mkfifo "$0.fifo"; sleep 600 <"$0.fifo" & exec "$@" >"$0.fifo" 2>&1\n')
    with night(tmp_path, prefix=["sh", str(script)]) as stage, clients(stage.url, ("/log", 4, 0.05), OK):
        try:
            stage.is_named(r"writes its log", LINE, r"pipe is full")
        finally:
            subprocess.run(["fuser", "-k", f"{script}.fifo"], capture_output=True, check=False)


def test_too_few_descriptors(tmp_path: Path) -> None:
    with slow_upstream() as upstream, night(tmp_path, {"UPSTREAM_URL": upstream}, limited_files(256)) as stage:
        with clients(stage.url, ("/up/500", 300, 0.2), OK):
            text = stage.is_named(r"descriptor|open files", r"ulimit|LimitNOFILE")
            assert not any(said.startswith("bad died") for said in stage.said), text


def test_lock_held_across_an_upstream_call(tmp_path: Path) -> None:
    with slow_upstream() as upstream, night(tmp_path, {"UPSTREAM_URL": upstream}) as stage:
        with clients(stage.url, ("/lock", 24), OK):
            stage.is_named(rf"The lock at {LINE}", r"rates_lock of tests/live/apps/night\.py", upstream[7:])


def test_semaphore_held_across_an_upstream_call(tmp_path: Path) -> None:
    with slow_upstream() as upstream, night(tmp_path, {"UPSTREAM_URL": upstream}) as stage:
        with clients(stage.url, ("/semaphore", 24), OK):
            stage.is_named(rf"semaphore at {LINE} \(/semaphore\)", r"two_at_a_time", upstream[7:])


def test_executor_is_too_small(tmp_path: Path) -> None:
    with slow_upstream() as upstream, night(tmp_path, {"UPSTREAM_URL": upstream}) as stage:
        with clients(stage.url, ("/executor", 30), OK):
            stage.is_named(r"executor of 4 threads \(prices, four_threads of ", r"calls queue", upstream[7:], LINE)


def test_sqlite_has_one_writer(tmp_path: Path) -> None:
    with night(tmp_path, {"NIGHT_SQLITE": str(tmp_path / "shop.sqlite")}) as stage:
        with clients(stage.url, ("/visit", 8, 0.05), OK):
            stage.is_named(r"SQLite's writer lock of shop\.sqlite", LINE)


def test_many_queries(tmp_path: Path) -> None:
    with postgres(tmp_path) as server, night(tmp_path, {"NIGHT_DATABASE_URL": server.url("postgres")}) as stage:
        with clients(stage.url, ("/many-queries", 1, 0.1), OK):
            stage.is_named(r"asks the database 40\d times", r"SELECT CAST", LINE, first=False)


def test_route_got_slow(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with slow_upstream() as upstream:
        with night(tmp_path, {"UPSTREAM_URL": upstream, "NIGHT_FLAG": str(flag)}) as stage:
            with clients(stage.url, ("/report", 4, 0.1), OK):
                time.sleep(40)  # what is usual has to be known
                flag.touch()
                stage.is_named(r"/report takes|Upstream \S+ is slow", upstream[7:], first=False)


def test_garbage_collection_of_a_big_heap(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/garbage", 2, 0.3), OK):
        stage.is_named(r"Garbage collection stops", first=False)


def test_fifty_megabytes_of_json(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/export", 1, 0.2), OK):
        stage.is_named(LINE, r"/export", r"GIL|computes|blocked", first=False)


def test_os_system_stops_nothing(tmp_path: Path) -> None:
    """It waits in C under a plain worker; here it is a wait as any other, and nothing is wrong."""
    with night(tmp_path) as stage, clients(stage.url, ("/system", 2, 0.2), OK):
        time.sleep(15)
        stage.findings()
        assert not any("blocked" in said for said in stage.said), stage.said


def test_call_waits_in_c(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/c-wait", 2, 0.2), OK):
        stage.is_named(LINE, r"in C", r"offload\(\)", first=False)


def test_memory_grows(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/keep", 1, 0.3), OK):
        stage.is_named(r"for each request of /keep", r"is reached in", first=False)


@pytest.mark.parametrize(("number", "words"), [(9, r"SIGKILL"), (15, r""), (11, r"SIGSEGV"), (6, r"SIGABRT")])
def test_worker_dies_by_a_signal(tmp_path: Path, number: int, words: str) -> None:
    with night(tmp_path) as stage, clients(stage.url, OK):
        with suppress(requests.RequestException):
            requests.get(f"{stage.url}/die/{number}", timeout=10)
        if number == signal.SIGTERM:  # a graceful end is no death
            time.sleep(8)
            stage.findings()
            assert not any(said.startswith("bad") for said in stage.said), stage.said
        else:
            stage.is_named(r"Worker \d \(pid \d+\) died", words)


def test_more_comes_than_can_be_served(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/work/20", 60), OK):
        stage.is_named(r"Overload", r"requests wait in line|turned away")


def test_one_client_sends_ten_times_what_can_be_served(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/work/20", 6), OK), greedy(stage.url + "/work/20", 60):
        stage.is_named(r"Overload", r"[6-9]\d% of all requests come from 203\.0\.113\.9", r"limit_req")


@contextmanager
def greedy(url: str, count: int) -> Iterator[None]:
    """One address, as a proxy tells it, that asks over many connections."""
    over = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not over.is_set():
                with suppress(requests.RequestException):
                    session.get(url, headers={"X-Forwarded-For": "203.0.113.9"}, timeout=30)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join(30)


def test_burst_of_clients_that_stay_is_shared_by_the_workers(tmp_path: Path) -> None:
    """Stock gunicorn gives them all to the worker that is there first. Here there is no trouble, and none is told."""
    with night(tmp_path) as stage, clients(stage.url, ("/work/5", 40)):
        stage.ops.wait_for(lambda view: min(one["connections"] for one in view["workers"]) >= 10, "both have clients")
        stage.findings()
        assert not any("One worker has nearly all clients" in said for said in stage.said), stage.said


def test_slow_uploads(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, OK), slow_senders(stage, 120):
        stage.is_named(r"120 requests wait for their clients to send the body", r"slow uploads", r"127\.0\.0\.1")


@contextmanager
def slow_senders(stage: Night, count: int) -> Iterator[None]:
    over = threading.Event()
    socks = [socket.create_connection(("127.0.0.1", stage.server.port)) for _ in range(count)]

    def send() -> None:
        for sock in socks:
            sock.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        while not over.wait(1):
            for sock in socks:
                with suppress(OSError):
                    sock.sendall(b"x" * 100)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(10)
    for sock in socks:
        sock.close()


def test_reloads_that_fail_and_hang_and_bring_an_error(tmp_path: Path) -> None:
    code = tmp_path / "shop.py"
    code.write_text(GOOD)
    with night(tmp_path, {"PYTHONPATH": str(tmp_path)}, app="shop:app") as stage, clients(stage.url, OK):
        deploy(stage, code, GOOD + "import no_such_module\n")
        stage.is_named(r"reload", r"no_such_module", r"shop\.py:6", r"the old code serves")
        deploy(stage, code, GOOD.replace('"ok"}', "1 / 0}"))
        stage.is_named(r"ZeroDivisionError", r"shop\.py:5", r"since")
        deploy(stage, code, GOOD + "import time; time.sleep(600)\n")
        stage.is_named(r"imports the application for", r"shop\.py:6", first=False)


def deploy(stage: Night, code: Path, text: str) -> None:
    time.sleep(1.1)  # a file that is written twice in a second may be taken for the same
    code.write_text(text)
    os.kill(stage.server.process.pid, signal.SIGHUP)
