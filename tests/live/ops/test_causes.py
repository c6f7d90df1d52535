"""The ops page names the cause within a minute: object, holder, line. Each trouble is staged for real."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from ..conftest import PYTHON_MODULE, Server, clean_environment, wait_until
from ..staging import MINUTE, Ops, Stage, clients, server_with_ops, staged

APP = """
from flask import Flask
app = Flask(__name__)
@app.get("/readyz")
def ready(): return {"status": "ok"}
"""


@pytest.fixture
def stage(tmp_path: Path, postgres_url: str) -> Iterator[Stage]:
    with staged(tmp_path, postgres_url) as stage:
        yield stage


def test_an_exception_with_its_line_and_what_cron_is_told(stage: Stage) -> None:
    with clients(stage.server.url, ("/fail", 1, 0.1), ("/", 4, 0.1)):
        verdict = stage.verdict("errors")
        address = stage.ops.url.removeprefix("http://")
        command = [*PYTHON_MODULE, "greenroom", "ops", "--check", "--at", address]
        told = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)

    assert re.search(
        r"fail: ValueError: as asked at tests/live/apps/trouble.py:\d+ \(/fail\)", str(verdict["sentence"])
    )
    assert told.returncode == 1
    assert told.stdout.startswith("WARNING: ")
    assert "ValueError: as asked" in told.stdout
    metrics = stage.ops.metrics()
    assert metrics['greenroom_exceptions_total{class="ValueError",route="/fail"}'] > 0
    assert metrics['greenroom_verdict{cause="errors",level="watch"}'] == 1


def test_a_lock_held_across_an_upstream_call(stage: Stage) -> None:
    with clients(stage.server.url, ("/lock/400", 24)):
        verdict = stage.verdict("lock_held")

    sentence = str(verdict["sentence"])
    assert re.search(r"The lock at tests/live/apps/trouble.py:\d+ is the bottleneck", sentence)
    assert f"its holder waits for upstream {stage.upstream}" in sentence


@pytest.mark.nightly
def test_an_executor_with_too_few_threads(stage: Stage) -> None:
    with clients(stage.server.url, ("/executor/600", 24)):
        verdict = stage.verdict("executor")

    assert re.search(
        r"An executor of 2 threads \(prices, two_threads of tests/live/apps/trouble\.py:\d+\) is the bottleneck",
        str(verdict["sentence"]),
    )
    assert stage.upstream in str(verdict["sentence"])


def test_an_upstream_that_refuses_and_is_asked_again_and_again(stage: Stage) -> None:
    with clients(stage.server.url, ("/retries", 3, 0.1), ("/", 2, 0.1)):
        verdict = stage.verdict("upstream_refuses")

    assert "Upstream 127.0.0.1:9 refuses connections" in str(verdict["sentence"])
    assert "4 calls for each request" in str(verdict["sentence"])
    assert re.search(r"Called at tests/live/apps/trouble.py:\d+ \(/retries\)", str(verdict["do"]))


def test_a_worker_that_crashed_and_a_disk_that_is_full(stage: Stage) -> None:
    with clients(stage.server.url, ("/full", 2, 0.1), ("/", 2, 0.1)):
        full = stage.verdict("disk_full")
    with suppress(requests.RequestException):
        requests.get(stage.server.url + "/crash", timeout=10)
    died = stage.ops.wait_for(
        lambda view: any(one["cause"] == "died" for one in [view["verdict"], *view["verdict"]["others"]]),
        "a dead worker",
        MINUTE,
    )["verdict"]

    assert "(ENOSPC): OSError: [Errno 28] No space left on device at tests/live/apps/trouble.py" in str(
        full["sentence"]
    )
    sentence = next(one["sentence"] for one in [died, *died["others"]] if one["cause"] == "died")
    assert re.search(r"it crashed in C code \(SIGSEGV\) at \S*trouble.py:\d+", sentence)


@pytest.mark.nightly
def test_many_queries_of_one_line(stage: Stage) -> None:
    with clients(stage.server.url, ("/queries/120", 1, 0.1)):
        verdict = stage.verdict("many_queries")

    # A new connection asks some things itself.
    pattern = r"Each request of /queries/<int:n> asks the database 1[23]\d times: 1[23]\d of them at tests/live/apps"
    assert re.search(pattern, str(verdict["sentence"]))
    assert "SELECT CAST" in str(verdict["sentence"])


@pytest.mark.nightly
def test_a_wait_in_a_c_library(stage: Stage) -> None:
    with clients(stage.server.url, ("/c-wait", 1)):
        stage.ops.wait_for(
            lambda view: "waits in C" in view["verdict"]["sentence"] or "waiting in C" in view["verdict"]["sentence"],
            "a wait in C",
            MINUTE,
        )
        verdict = stage.ops.view()["verdict"]

    assert "offload()" in verdict["do"]


@pytest.mark.nightly
def test_the_lock_of_a_file(stage: Stage) -> None:
    with clients(stage.server.url, ("/file/400", 10)):
        verdict = stage.verdict("lock")

    assert "A file's lock (flock) is the bottleneck" in str(verdict["sentence"])
    assert re.search(r"at tests/live/apps/trouble.py:\d+ \(/file/<int:ms>\)", str(verdict["sentence"]))


@pytest.mark.nightly
def test_memory_that_a_route_keeps(stage: Stage) -> None:
    with clients(stage.server.url, ("/keep/3", 1, 0.1), ("/", 3, 0.1)):
        verdict = stage.verdict("memory_grows")

    assert "for each request of /keep/<int:mb>" in str(verdict["sentence"])


@pytest.fixture
def reloadable(tmp_path: Path) -> Iterator[tuple[Server, Ops, Path]]:
    """A server whose application is a file of this test's."""
    code = tmp_path / "shop.py"
    code.write_text(APP)
    environ = {"WSGI_APP": "shop:app", "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    with server_with_ops(tmp_path, "/readyz", **environ) as (server, ops):
        yield server, ops, code


def test_a_reload_that_fails_and_one_that_hangs(reloadable: tuple[Server, Ops, Path]) -> None:
    """Neither is a dead worker, and the old code serves."""
    server, ops, code = reloadable
    code.write_text(APP + "import no_such_module\n")
    os.kill(server.process.pid, signal.SIGHUP)
    failed = ops.wait_for(lambda view: view["verdict"]["cause"] == "reload_failed", "a failed reload", MINUTE)[
        "verdict"
    ]
    time.sleep(1)  # a file that is written twice in a second may be taken for the same
    code.write_text(APP + "import time\ntime.sleep(600)\n")
    os.kill(server.process.pid, signal.SIGHUP)
    hangs = ops.wait_for(
        lambda view: view["verdict"]["cause"] == "import_hangs" and "shop.py" in view["verdict"]["sentence"],
        "an import that hangs",
        MINUTE,
    )["verdict"]
    wait_until(lambda: requests.get(server.url + "/readyz", timeout=5).status_code == 200, "the old code serves")

    assert "ModuleNotFoundError: No module named 'no_such_module' at" in failed["sentence"]
    assert "shop.py:6; the old code serves on (2 workers)" in failed["sentence"]
    assert not any(one["cause"] == "died" for one in failed["others"])
    assert "imports the application for" in hangs["sentence"]
    assert "shop.py:7" in hangs["sentence"]
