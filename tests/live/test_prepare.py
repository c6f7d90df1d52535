"""The companion process: what it says, what it keeps alive, and when it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from devdb.cluster import Cluster

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]
LONG_WAIT = 60.0


@pytest.fixture(scope="module")
def instance() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="boards-test-"))
    yield base
    shutil.rmtree(base)


@pytest.fixture
def prepare(instance: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(**environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "devdb.prepare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "INSTANCE_PATH": str(instance), **environ},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(LONG_WAIT)
        if not process.stderr.closed:
            print(process.stderr.read())  # why it failed, if it did
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
    Cluster(instance / "postgres").stop()


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + LONG_WAIT
    while not condition():
        assert time.monotonic() < give_up_at, "the condition did not come true"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=5).close()
    except psycopg2.OperationalError:
        return False
    return True


def test_database_is_migrated_seeded_kept_alive_and_let_go_at_the_end_of_input(
    prepare: Callable[..., subprocess.Popen[str]], instance: Path
) -> None:
    process = prepare(PUBLIC_URL="http://127.0.0.1:8123")
    url = json.loads(process.stdout.readline())["environment"]["DATABASE_URL"]
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT url FROM sources WHERE name = 'weather'")
        assert cursor.fetchone() == ("http://127.0.0.1:8123/demo/delay/120",)
    connection.close()

    process.send_signal(signal.SIGINT)  # Ctrl-C is not for it
    os.kill(Cluster(instance / "postgres").postmaster().pid, signal.SIGKILL)
    wait_until(lambda: answers(url))
    process.stdin.close()

    assert process.wait(LONG_WAIT) == 0
    assert not answers(url)
    assert process.stdout.read() == ""
    assert "embedded postgres died, starting it again" in process.stderr.read()


def test_sigterm_lets_the_database_go(prepare: Callable[..., subprocess.Popen[str]]) -> None:
    process = prepare()
    url = json.loads(process.stdout.readline())["environment"]["DATABASE_URL"]

    process.terminate()

    assert process.wait(LONG_WAIT) == 0
    assert not answers(url)


def test_wrong_settings_are_listed_and_nothing_is_started(
    prepare: Callable[..., subprocess.Popen[str]], instance: Path
) -> None:
    process = prepare(MAIL_PORT="0", HISTORY_DAYS="never", INSTANCE_PATH=str(instance / "other"))

    output, errors = process.communicate(timeout=LONG_WAIT)

    assert process.returncode == 2
    assert output == ""
    assert [line[:12] for line in errors.splitlines()] == ["  - HISTORY_", "  - MAIL_POR"]
    assert not (instance / "other").exists()


def test_embedded_database_that_cannot_start_is_explained(
    prepare: Callable[..., subprocess.Popen[str]], instance: Path
) -> None:
    (instance / "file").write_text("in the way")
    process = prepare(INSTANCE_PATH=str(instance / "file"))

    output, errors = process.communicate(timeout=LONG_WAIT)

    assert process.returncode == 1
    assert output == ""
    assert "Set DATABASE_URL to a PostgreSQL of your own" in errors
    assert "Traceback" not in errors


def test_database_of_your_own_that_is_down_is_a_warning(prepare: Callable[..., subprocess.Popen[str]]) -> None:
    process = prepare(DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/boards")
    assert json.loads(process.stdout.readline()) == {"environment": {}}

    process.stdin.close()

    assert process.wait(LONG_WAIT) == 0
    errors = process.stderr.read()
    assert "Warning: the database can't be reached: connection to server at" in errors
    assert "hunter2" not in errors
