"""The benchmarks and the Locust file, run as the documentation says, but short."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.client import Generator, Load
from benchmarks.servers import upstream_running

from .conftest import PYTHON_MODULE, ROOT, Server, clean_environment, free_port

RUN_SECONDS = 110
LOCUST = (*PYTHON_MODULE, "locust", "-f", "benchmarks/locustfile.py")
LOCUST_SECONDS = 60


def test_a_database_that_is_not_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    environ = {**clean_environment(), "DATABASE_URL": f"postgresql://u:secret@127.0.0.1:{free_port()}/x"}

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "run", "--quick", "--routes", "database", "--output", str(tmp_path)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("Error: the database can't be used: ")
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_the_upstream_lets_many_wait_at_once_and_ends_with_whoever_started_it() -> None:
    with upstream_running() as url:
        load = Load(
            host="127.0.0.1",
            port=int(url.rpartition(":")[2]),
            path="/delay/300",
            expected_body=b'{"delay_ms": 300}',
            clients=500,
            warm_up_seconds=0.5,
            seconds=1.0,
            timeout_seconds=20,
        )
        sample = Generator(load).run()

    assert sample.errors == {}
    # In line behind each other, 500 waits of 300 ms would take 150 s.
    assert sample.completed > 500
    assert min(sample.latencies_ms) >= 295
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", load.port), timeout=5)


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of our own: each Locust process signs up, and the shared one counts sign-ups."""
    folder = tmp_path_factory.mktemp("boards")
    port = free_port()
    environ = {"GREENROOM_BIND": f"127.0.0.1:{port}", "INSTANCE_PATH": str(folder / "instance"), "WEB_CONCURRENCY": "1"}
    server = Server([*PYTHON_MODULE, "gunicorn"], environ, folder / "server.log", port).wait_ready()
    yield server
    server.stop()


def check_stats(printed: str) -> None:
    """`printed` is Locust's --json: everything was done, and nothing failed."""
    stats = {(one["method"], one["name"]): one for one in json.loads(printed)}

    assert {
        ("POST", "/sign-up"),
        ("POST", "/sign-in"),
        ("GET", "/api/boards"),
        ("GET", "/api/boards/demo/results"),
        ("GET", "/api/boards/demo/stream"),
        ("SSE", "/api/boards/demo/stream (first event)"),
    } <= set(stats)
    assert sum(one["num_failures"] for one in stats.values()) == 0
    # The slowest source of the demo board is given up after a second; the first event comes long before.
    stream, first_event = stats["GET", "/api/boards/demo/stream"], stats["SSE", "/api/boards/demo/stream (first event)"]
    assert stream["min_response_time"] >= 900
    assert first_event["min_response_time"] < stream["min_response_time"]


def run_locust(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # Users may end what they do when the time is up, so the shortest run has done everything, on any machine. (A
        # master leaves after half a second; a distributed run gets more time for the same.)
        [*LOCUST, *arguments, "--headless", "--stop-timeout", "30", "--exit-code-on-error", "1"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=LOCUST_SECONDS,
    )


def test_locust_alone_signs_in_lists_fetches_and_watches_without_a_failure(boards: Server) -> None:
    done = run_locust("--host", boards.url, "-u", "5", "-r", "5", "-t", "4s", "--json")

    assert done.returncode == 0, done.stdout + done.stderr + boards.text()
    check_stats(done.stdout)


@pytest.mark.nightly
def test_locust_with_a_master_and_two_workers_does_the_same(boards: Server) -> None:
    port = str(free_port())
    worker = [*LOCUST, "--worker", "--master-port", port]
    workers = [
        subprocess.Popen(worker, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2")
    try:
        done = run_locust(*master, "--host", boards.url, "-u", "4", "-r", "4", "-t", "12s", "--json")
        said = [process.communicate(timeout=LOCUST_SECONDS)[0].decode() for process in workers]
    finally:
        for process in workers:
            if process.poll() is None:
                process.kill()
                process.communicate()

    assert done.returncode == 0, done.stdout + done.stderr + boards.text()
    assert [process.returncode for process in workers] == [0, 0], said
    check_stats(done.stdout)


def test_locust_fails_when_the_server_refuses(boards: Server) -> None:
    arguments = ("--host", boards.url, "-u", "1", "-t", "2s", "--api-token", "nonsense")

    done = run_locust(*arguments)

    assert done.returncode == 1
    assert "401" in done.stdout + done.stderr
