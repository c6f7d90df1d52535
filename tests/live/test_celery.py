"""Real Celery workers over the embedded PostgreSQL, as docs/jobs.md starts them."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from devdb.server import EmbeddedPostgres

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]
LONG_WAIT = 90.0
ENQUEUE = """
from app import create_app
from app.jobs import enqueue
with create_app().app_context():
    enqueue("send_mail", to="ann@example.org", subject="Hello from the queue", text="a link that is secret")
    enqueue("refresh_all_boards")
"""


@pytest.fixture
def instance() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="boards-test-"))
    yield base
    shutil.rmtree(base)


@pytest.fixture
def database(instance: Path) -> Iterator[str]:
    """Held by the test, as the server would hold it."""
    postgres = EmbeddedPostgres(instance / "postgres")
    yield postgres.start()
    postgres.stop()


@pytest.fixture
def celery(instance: Path, database: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`celery("worker", "-P", "gevent")`; its log is in the instance folder and shown when the test fails."""
    started: list[subprocess.Popen[bytes]] = []
    log = instance / "celery.log"

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "app.celery_app", *arguments]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(instance), stdout=output, stderr=subprocess.STDOUT
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(LONG_WAIT)
    print(log.read_text() if log.exists() else "(no log)")


def environment(instance: Path) -> dict[str, str]:
    return {**os.environ, "INSTANCE_PATH": str(instance), "JOBS": "celery", "PYTHONUNBUFFERED": "1"}


def enqueue(instance: Path) -> None:
    command = [sys.executable, "-c", ENQUEUE]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(instance), capture_output=True, text=True, timeout=LONG_WAIT
    )
    assert done.returncode == 0, done.stderr


def wait_until(condition: Callable[[], object], what: str) -> None:
    give_up_at = time.monotonic() + LONG_WAIT
    while not condition():
        assert time.monotonic() < give_up_at, f"waited in vain: {what}"
        time.sleep(0.1)


def mails(instance: Path) -> list[str]:
    outbox = instance / "outbox"
    return [path.read_text() for path in outbox.iterdir()] if outbox.is_dir() else []


def number_of_fetches(url: str) -> int:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM fetches")
            return cursor.fetchone()[0]
    finally:
        connection.close()


@pytest.mark.parametrize("pool", ["prefork", pytest.param("gevent", marks=pytest.mark.nightly)])
def test_worker_sends_queued_mail_and_sweeps_the_boards(
    pool: str, instance: Path, database: str, celery: Callable[..., subprocess.Popen[bytes]]
) -> None:
    worker = celery("worker", "-P", pool, "-c", "2", "-l", "INFO")
    log = instance / "celery.log"
    wait_until(lambda: " ready." in log.read_text(), "the worker is ready")

    enqueue(instance)

    wait_until(lambda: len(mails(instance)) == 1, "the mail is in the outbox")
    wait_until(lambda: number_of_fetches(database) == 8, "all sources of the demo board are recorded")
    assert "Subject: Hello from the queue" in mails(instance)[0]
    assert "a link that is secret" not in log.read_text()
    worker.terminate()
    assert worker.wait(LONG_WAIT) == 0
    assert "Traceback" not in log.read_text()


def test_what_is_queued_outlives_a_worker_killed_with_9(
    instance: Path, database: str, celery: Callable[..., subprocess.Popen[bytes]]
) -> None:
    first = celery("worker", "-P", "solo", "-l", "INFO")
    wait_until(lambda: " ready." in (instance / "celery.log").read_text(), "the worker is ready")
    first.kill()
    first.wait(LONG_WAIT)

    enqueue(instance)
    celery("worker", "-P", "solo", "-l", "INFO")

    wait_until(lambda: len(mails(instance)) == 1, "the mail is in the outbox")
    wait_until(lambda: number_of_fetches(database) == 8, "all sources of the demo board are recorded")


def test_beat_keeps_its_schedule_in_the_instance_folder(
    instance: Path, celery: Callable[..., subprocess.Popen[bytes]]
) -> None:
    beat = celery("beat", "-l", "INFO")

    wait_until(lambda: list(instance.glob("celerybeat-schedule*")), "beat has written its schedule")
    wait_until(lambda: "beat: Starting" in (instance / "celery.log").read_text(), "beat has started")

    beat.terminate()
    assert beat.wait(LONG_WAIT) == 0
