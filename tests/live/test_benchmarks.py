"""The benchmarks, run as the README says, but short."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.client import Generator, Load
from benchmarks.servers import upstream_running

from .conftest import ROOT, clean_environment

COMPARE_SECONDS = 110
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder of one quick comparison, and what it printed."""
    folder = tmp_path_factory.mktemp("compare")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", "--quick", "--output", str(folder)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=COMPARE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def document(comparison: tuple[Path, str]) -> dict:
    return json.loads((comparison[0] / "compare.json").read_text())


def test_every_server_answered_on_every_route_without_an_error(document: dict) -> None:
    found = {(one["route"], one["server"]): one for one in document["summaries"]}

    assert set(found) == {
        (route, server) for route in ("upstream", "database", "plain") for server in ("sync", "gthread", "gevent")
    }
    for one in found.values():
        assert one["errors"] == {}
        assert one["requests_per_second"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert one["memory_bytes"] > 10_000_000


def test_only_the_gevent_worker_waits_for_all_clients_at_once(document: dict) -> None:
    """8 clients and a wait of 100 ms: behind a sync worker the last in line waits 800 ms."""
    p50 = {one["server"]: one["p50_ms"] for one in document["summaries"] if one["route"] == "upstream"}

    assert p50["sync"] > 700
    assert 100 <= p50["gevent"] < 700


def test_each_server_was_what_its_name_says(comparison: tuple[Path, str]) -> None:
    logs = {path.name: path.read_text() for path in (comparison[0] / "logs").iterdir()}

    for worker_class in ("sync", "gthread", "gevent"):
        assert re.search(rf"Using worker: {worker_class}$", logs[f"{worker_class}-1.log"], re.MULTILINE)


def test_the_document_has_what_is_needed_to_measure_again(document: dict) -> None:
    assert document["schema"] == "greenroom.benchmarks/1"
    assert document["command"].startswith("python -m benchmarks.compare --quick")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["started_at"])
    assert document["machine"]["cpu"]
    assert document["machine"]["pinning"]["note"]
    assert {"python", "gunicorn", "gevent", "flask", "database", "commit"} <= set(document["versions"])
    assert [server["settings"]["worker_class"] for server in document["servers"]] == ["sync", "gthread", "gevent"]
    assert len(document["rounds"]) == 9
    assert {"completed", "p50_ms", "p99_ms", "errors", "generator_cpu_ratio"} <= set(document["rounds"][0])


def test_the_table_says_what_was_pinned_and_names_every_column(comparison: tuple[Path, str]) -> None:
    printed = comparison[1]

    assert printed.startswith("Pinning: ")
    for column in ("requests/s", "p50 ms", "p99 ms", "errors", "MB", "client CPU"):
        assert column in printed
    assert re.search(r"upstream +sync +\d", printed)
    assert re.search(r"gevent +\d+ \(×", printed)


def test_the_plots_are_images(comparison: tuple[Path, str]) -> None:
    assert (comparison[0] / "compare.png").read_bytes().startswith(PNG_SIGNATURE)
    assert "<svg" in (comparison[0] / "compare.svg").read_text()[:2000]


def test_nothing_is_left_running(comparison: tuple[Path, str]) -> None:
    folder = str(comparison[0])

    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]

    assert [command for command in commands if folder in command] == []


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
