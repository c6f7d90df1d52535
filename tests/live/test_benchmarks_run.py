"""benchmarks.run, run as the documentation says, but short, and with the servers that every environment has."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import ROUTES

from .conftest import ROOT, clean_environment

RUN_SECONDS = 110
# Of the peers only one, and whether it is installed or not is all the same.
PEERS = ("gevent", "greenroom", "granian")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *arguments],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder of one quick run, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    done = run("--quick", "--peers", ",".join(PEERS), "--output", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def document(measured: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((measured[0] / "run.json").read_text())


@pytest.mark.nightly
def test_every_server_answered_rightly_or_is_listed(document: dict[str, Any]) -> None:
    found = {(one["route"], one["server"]): one for one in document["summaries"]}
    listed = {sentence.partition(",")[0] for sentence in document["not_measured"]}

    assert listed <= {"granian"}
    assert set(found) == {
        (route, peer)
        for route in ROUTES
        for peer in PEERS
        if peer not in listed and (not ROUTES[route].peers or peer in ROUTES[route].peers)
    }
    for one in found.values():
        assert one["errors"] == {}
        assert one["requests_per_second"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"]


@pytest.mark.nightly
def test_who_is_not_measured_is_said_with_the_command_that_installs_it(
    measured: tuple[Path, str], document: dict[str, Any]
) -> None:
    is_listed = bool(document["not_measured"])

    assert ("Not measured: granian, because granian" in measured[1]) is is_listed
    assert ("python -m benchmarks run --install-peers" in measured[1]) is is_listed


@pytest.mark.nightly
def test_each_server_was_what_its_name_says(measured: tuple[Path, str]) -> None:
    logs = {path.name: path.read_text() for path in (measured[0] / "logs").iterdir()}

    assert re.search(r"Using worker: gevent$", logs["run-gevent-dict-1.log"], re.MULTILINE)
    assert re.search(r"Using worker: greenroom\.worker\.GreenWorker$", logs["run-greenroom-hello-1.log"], re.MULTILINE)


@pytest.mark.nightly
def test_the_document_has_what_is_needed_to_measure_again(document: dict[str, Any]) -> None:
    assert document["command"].startswith("python -m benchmarks.run --quick")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["started_at"])
    assert document["machine"]["cpu"]
    assert document["machine"]["pinning"]["note"]
    assert {"python", "gunicorn", "gevent", "flask", "commit"} <= set(document["versions"])
    assert document["baseline"] == "gevent"
    assert {"generator_cpu_ratio", "server_cpu_ratio", "errors"} <= set(document["rounds"][0])


@pytest.mark.nightly
def test_targets_are_judged_aloud(measured: tuple[Path, str], document: dict[str, Any]) -> None:
    assert [(one["route"], one["at_least"]) for one in document["targets"]] == [
        ("hello", 3.0), ("dict", 1.7), ("session", 2.5), ("bare", 2.5), ("database", 1.5),
    ]  # fmt: skip
    for target in document["targets"]:
        assert f"greenroom on {target['sentence']}." in measured[1]


@pytest.mark.nightly
def test_the_plots_are_images(measured: tuple[Path, str]) -> None:
    assert (measured[0] / "run.png").read_bytes().startswith(PNG_SIGNATURE)
    assert "<svg" in (measured[0] / "run.svg").read_text()[:2000]


@pytest.mark.nightly
def test_nothing_is_left_running(measured: tuple[Path, str]) -> None:
    said = "".join(
        (measured[0] / "logs" / f"run-{name}-1.log").read_text() for name in ("gevent-dict", "greenroom-dict")
    )
    ports = re.findall(r"Listening at: http://127\.0\.0\.1:(\d+)", said)

    assert len(ports) == 2
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)), timeout=5)


def test_environment_that_is_not_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    done = run("--quick", "--peers-venv", str(tmp_path / "nothing"), "--output", str(tmp_path / "out"))

    assert done.returncode == 1
    assert done.stderr.startswith("Error: the Python for the peers can't be run: ")
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
def test_only_green_workers_wait_for_all_clients_at_once(tmp_path: Path) -> None:
    """8 clients and a wait of 100 ms: behind a sync worker the last in line waits 800 ms."""
    done = run("--quick", "--worker-classes", "--routes", "session", "--threads", "2", "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr

    document = json.loads((tmp_path / "run.json").read_text())
    p50 = {one["server"]: one["p50_ms"] for one in document["summaries"]}
    logs = {name: (tmp_path / "logs" / f"run-{name}-session-1.log").read_text() for name in p50}

    assert list(p50) == ["sync", "gthread", "gevent", "greenroom"]
    assert p50["sync"] > 700 > p50["gevent"]
    assert p50["gthread"] > 300
    assert 100 <= p50["greenroom"] < 700
    for name in ("sync", "gthread", "gevent"):
        assert re.search(rf"Using worker: {name}$", logs[name], re.MULTILINE)
