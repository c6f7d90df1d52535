"""Verdicts for an operator with only the ops page: each trouble is staged for real, and the verdict names it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from ..conftest import wait_until
from ..staging import MINUTE, Stage, clients, staged


@pytest.fixture
def stage(tmp_path: Path, postgres_url: str) -> Iterator[Stage]:
    with staged(tmp_path, postgres_url) as stage:
        yield stage


def test_a_healthy_server_is_called_healthy(stage: Stage) -> None:
    with clients(stage.server.url, ("/", 2, 0.05), ("/upstream/100", 5)):
        stage.ops.wait_for(lambda view: view["total"]["requests_rate"] > 5, "requests are counted")
        verdict = stage.verdict("healthy")

    assert verdict["level"] == "ok"
    assert "requests/s" in str(verdict["sentence"])


def test_a_regex_that_holds_the_gil(stage: Stage) -> None:
    """2^31 steps: it holds until the worker is killed at the end."""
    with clients(stage.server.url, ("/regex/31", 1)):
        view = stage.ops.wait_for(
            # The line may come a second later, on a busy machine.
            lambda view: view["verdict"].get("holds_gil") and view["verdict"].get("line"),
            "a held GIL",
            MINUTE,
        )

    sentence = view["verdict"]["sentence"]
    assert "C code holds the GIL" in sentence
    assert "tests/live/apps/trouble.py:" in sentence
    assert any("trouble.py" in call and "regex" in call for call in view["verdict"]["stack"])


def test_a_pool_too_small(stage: Stage) -> None:
    with clients(stage.server.url, ("/pool/1000", 24)):
        verdict = stage.verdict("pool")

    assert "The database pool" in str(verdict["sentence"])
    assert "is the bottleneck" in str(verdict["sentence"])
    assert "connections" in str(verdict["sentence"])


def test_a_slow_upstream(stage: Stage) -> None:
    with clients(stage.server.url, ("/upstream/100", 4)):
        time.sleep(1)
    with clients(stage.server.url, ("/upstream/5000", 10), ("/", 1, 0.1)):
        verdict = stage.verdict("upstream")

    assert f"Upstream {stage.upstream} is slow" in str(verdict["sentence"])


@pytest.mark.nightly
def test_a_slow_upstream_beside_many_streams(stage: Stage) -> None:
    """Streams that only sleep are no reason to call the server healthy."""
    with clients(stage.server.url, ("/sleep/60000", 30), ("/upstream/20000", 6)):
        verdict = stage.verdict("upstream")

    assert verdict["level"] == "bad"
    assert "6 of 6 requests wait for it" in str(verdict["sentence"])


def test_a_database_connection_held_across_a_call(stage: Stage) -> None:
    with clients(stage.server.url, ("/held/700", 24)):
        verdict = stage.verdict("held")

    assert stage.upstream in str(verdict["sentence"])
    assert "trouble.py:" in str(verdict["sentence"])


def test_a_deadlock(stage: Stage) -> None:
    with clients(stage.server.url, ("/locks/left", 4), ("/locks/right", 4)):
        verdict = stage.verdict("deadlock")

    assert "/locks/left" in str(verdict["sentence"])
    assert "/locks/right" in str(verdict["sentence"])
    assert "trouble.py:" in str(verdict["do"])


def test_overload(stage: Stage) -> None:
    took = []
    with clients(stage.server.url, ("/work/20", 60)):
        verdict = stage.verdict("overload")
        for _ in range(5):
            began = time.monotonic()
            stage.ops.metrics()
            took.append(time.monotonic() - began)

    assert min(took) < 0.1
    assert "requests wait in line" in str(verdict["sentence"])


def test_one_dead_worker(stage: Stage) -> None:
    victim = stage.server.workers()[0]

    victim.kill()
    verdict = stage.verdict("died")

    assert f"(pid {victim.pid})" in str(verdict["sentence"])
    stage.ops.wait_for(lambda view: "its replacement serves" in view["verdict"]["sentence"], "it is replaced", MINUTE)
    assert stage.ops.metrics()["greenroom_workers_died_total"] == 1
    wait_until(lambda: requests.get(stage.server.url + "/", timeout=10).status_code == 200, "it serves")
