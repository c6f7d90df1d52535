import os
import re
import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask, current_app, has_request_context
from sqlalchemy import create_engine, text

from app import boards, create_app
from app.extensions import db
from app.jobs import QueueUnavailable, background, enqueue, queue, work
from app.jobs.background import Background, TooManyJobs
from app.models import Board, Fetch, RateLimitCounter, Source, StoredSession, utc_now

LONG_WAIT = 10.0
KOMBU = "ignore:The ``noload`` loader strategy is deprecated:sqlalchemy.exc.SADeprecationWarning"


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """A job called `note`, and what it was given and saw."""
    seen: list[dict[str, object]] = []

    def note(**values: object) -> None:
        seen.append({**values, "app": current_app._get_current_object(), "in_request": has_request_context()})

    monkeypatch.setitem(work.JOBS, "note", note)
    return seen


@pytest.fixture
def make_board(app: Flask) -> Callable[..., int]:
    def make(slug: str, url: str = "http://127.0.0.1:1/") -> int:
        with app.app_context():
            board = Board(slug=slug, title=slug, sources=[Source(position=0, name="one", url=url, timeout_ms=500)])
            db.session.add(board)
            db.session.commit()
            return board.id

    return make


@pytest.fixture
def outbox(app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(app.extensions["mailman"], "file_path", str(tmp_path))
    return tmp_path


def drain(app: Flask) -> None:
    assert app.extensions["background"].drain(LONG_WAIT)


# Threads of this process


def test_job_runs_with_an_application_context_and_no_request(app: Flask, job: list[dict[str, object]]) -> None:
    with app.test_request_context("/"):
        enqueue("note", to="ann@example.org")
        drain(app)

    assert job == [{"to": "ann@example.org", "app": app, "in_request": False}]


def test_job_that_does_not_exist_is_refused_at_once(app: Flask) -> None:
    with app.app_context(), pytest.raises(KeyError, match="send_male"):
        enqueue("send_male", to="ann@example.org")


def test_value_that_a_queue_could_not_carry_is_refused_with_threads_too(app: Flask) -> None:
    with app.app_context(), pytest.raises(TypeError, match="not JSON serializable"):
        enqueue("send_mail", to=Board(slug="demo"))


def test_failed_job_is_logged_without_its_values_and_the_next_one_runs(
    app: Flask, job: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setitem(work.JOBS, "fail", fail)
    with app.app_context():
        for _ in range(background.THREADS + 1):
            enqueue("fail", secret="hunter2")
        enqueue("note", number=1)
        drain(app)

    assert [entry["number"] for entry in job] == [1]
    assert "no such luck" in caplog.text
    assert "hunter2" not in caplog.text


def test_full_queue_is_a_503_and_not_a_growing_one(
    app: Flask, monkeypatch: pytest.MonkeyPatch, job: list[dict[str, object]]
) -> None:
    monkeypatch.setattr(app.extensions["background"], "longest_queue", 0)

    with app.app_context(), pytest.raises(QueueUnavailable) as caught:
        enqueue("note")

    assert (caught.value.code, caught.value.retry_after) == (503, 5)
    assert job == []


def test_no_more_threads_are_started_than_allowed(app: Flask) -> None:
    running, most = 0, 0
    lock, all_in = threading.Lock(), threading.Event()

    def count_me() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                all_in.set()
        all_in.wait(LONG_WAIT)
        with lock:
            running -= 1

    pool = Background(app, threads=3)
    for _ in range(12):
        pool.submit("count", count_me, {})

    assert pool.drain(LONG_WAIT)
    assert most == 3


def test_draining_ends_within_its_bound_and_says_what_is_lost(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    pool = Background(app, threads=1)
    for _ in range(3):
        pool.submit("wait", lambda: release.wait(LONG_WAIT), {})

    started = time.monotonic()
    drained = pool.drain(0.05)

    assert not drained
    assert time.monotonic() - started < 1
    assert [record.jobs for record in caplog.records if record.message == "jobs given up at exit"] == [3]
    release.set()
    assert pool.drain(LONG_WAIT)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_forked_process_starts_threads_of_its_own(app: Flask) -> None:
    pool = Background(app)
    pool.submit("before", lambda: None, {})
    assert pool.drain(LONG_WAIT)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            pool.submit("after", lambda: os.write(writing, b"done"), {})
            pool.drain(LONG_WAIT)
        finally:
            os._exit(0)

    os.waitpid(pid, 0)
    os.close(writing)

    with open(reading, "rb") as pipe:
        assert pipe.read() == b"done"


def test_too_many_jobs_says_how_many_wait(app: Flask) -> None:
    release = threading.Event()
    pool = Background(app, threads=1, longest_queue=2)
    for _ in range(2):
        pool.submit("wait", lambda: release.wait(LONG_WAIT), {})

    with pytest.raises(TooManyJobs, match="2 jobs are waiting"):
        pool.submit("wait", print, {})

    release.set()
    assert pool.drain(LONG_WAIT)


# The jobs


def test_mail_lands_in_the_outbox_in_development(app: Flask, outbox: Path) -> None:
    with app.app_context():
        work.send_mail("ann@example.org", "Grüße", "Line one\nLine two: ä\n")

    (message,) = (path.read_text() for path in outbox.iterdir())
    assert "To: ann@example.org" in message
    assert "From: boards@localhost" in message
    assert re.search(r"^Subject: =\?utf-8\?", message, re.MULTILINE)


def test_mail_with_a_line_break_in_a_header_is_not_sent(app: Flask, outbox: Path) -> None:
    with app.app_context(), pytest.raises(ValueError, match="Header values can't contain newlines"):
        work.send_mail("ann@example.org", "Hello\nBcc: everybody@example.org", "text")

    assert list(outbox.iterdir()) == []


def test_sweep_records_every_board_and_one_that_fails_spoils_no_other(
    app: Flask,
    make_board: Callable[..., int],
    count: Callable[[str], int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for slug in ("one", "broken", "two"):
        make_board(slug)
    results = boards.results

    def fail_for_broken(planned: boards.BoardPlan) -> object:
        if planned.slug == "broken":
            raise RuntimeError("no such luck")
        return results(planned)

    monkeypatch.setattr(boards, "results", fail_for_broken)

    with app.app_context():
        assert work.refresh_all_boards() == {"refreshed": 2, "failed": 1, "skipped": 0}

    assert count("fetches") == 2
    assert "no such luck" in caplog.text


def test_sweep_out_of_time_skips_and_begins_with_the_skipped_next_time(
    app: Flask, make_board: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, never_seen = make_board("fresh"), make_board("never-seen")
    with app.app_context():
        db.session.add(Fetch(board_id=fresh, source_name="one", elapsed_ms=1, status=200))
        db.session.commit()
        assert work.refresh_all_boards(budget_seconds=0) == {"refreshed": 0, "failed": 0, "skipped": 2}
        order: list[int] = []
        monkeypatch.setattr(work, "BOARDS_AT_ONCE", 1)
        monkeypatch.setattr(boards, "results", lambda planned: order.append(planned.id))

        work.refresh_all_boards()

    assert order == [never_seen, fresh]


def test_purge_deletes_what_is_over_and_keeps_the_rest(
    app: Flask, make_board: Callable[..., int], count: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PURGE_BATCH_ROWS", 2)  # several batches
    board, now = make_board("one"), utc_now()
    with app.app_context():
        for days in (0, 29, 31, 32, 33, 34, 35):
            started_at = now - timedelta(days=days)
            db.session.add(Fetch(board_id=board, source_name="one", elapsed_ms=1, status=200, started_at=started_at))
        for name, minutes in (("over", -1), ("live", 1)):
            ends_at = now + timedelta(minutes=minutes)
            db.session.add(StoredSession(id=name, data=b"", expires_at=ends_at))
            db.session.add(RateLimitCounter(key=name, count=1, window_ends_at=ends_at))
        db.session.commit()

        deleted = work.purge()

    assert {name: deleted[name] for name in ("fetches", "sessions", "rate_limit_counters")} == {
        "fetches": 5,
        "sessions": 1,
        "rate_limit_counters": 1,
    }
    assert (count("fetches"), count("sessions"), count("rate_limit_counters")) == (2, 1, 1)


# Celery


@pytest.fixture
def celery_app(app: Flask, postgres_url: str, instance_path: Path) -> Iterator[Flask]:
    """The application as with JOBS=celery, over the default broker."""
    environ = {"DATABASE_URL": postgres_url, "INSTANCE_PATH": str(instance_path), "JOBS": "celery"}
    with_celery = create_app(environ)
    yield with_celery
    with with_celery.app_context():
        db.engine.dispose()
    engine = create_engine(with_celery.config["SQLALCHEMY_DATABASE_URI"])
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS kombu_message, kombu_queue"))
    engine.dispose()
    for engine, _ in broker_engines().values():
        engine.dispose()
    broker_engines().clear()


def broker_engines() -> dict[str, object]:
    from kombu.transport.sqlalchemy import Channel

    return Channel._engines


@pytest.mark.filterwarnings(KOMBU)
def test_queued_job_waits_in_postgresql_as_json_and_shows_no_values(celery_app: Flask) -> None:
    with celery_app.app_context():
        enqueue("send_mail", to="ann@example.org", subject="Hello", text="a secret link")
        with db.engine.connect() as connection:
            (payload,) = connection.scalars(text("SELECT payload FROM kombu_message WHERE visible"))

    assert '"content-type": "application/json"' in payload
    assert '"task": "send_mail"' in payload
    assert '"kwargsrepr": "{...}"' in payload
    assert "secret link" not in payload  # in the body, which is base64, and nowhere else


@pytest.mark.filterwarnings(KOMBU)
def test_purge_removes_what_the_broker_has_delivered_long_ago(celery_app: Flask) -> None:
    with celery_app.app_context():
        for _ in range(3):
            enqueue("purge")
        with db.engine.begin() as connection:
            ids = list(connection.scalars(text("SELECT id FROM kombu_message ORDER BY id")))
            delivered = text(
                "UPDATE kombu_message SET visible = false, timestamp = localtimestamp - :age WHERE id = :id"
            )
            connection.execute(delivered, {"age": timedelta(days=3), "id": ids[0]})
            connection.execute(delivered, {"age": timedelta(minutes=3), "id": ids[1]})

        assert work.purge()["kombu_message"] == 1


@pytest.mark.parametrize(
    "broker", ["redis://127.0.0.1:{}/0", "amqp://127.0.0.1:{}", "sqla+postgresql://u@127.0.0.1:{}/b"]
)
def test_broker_that_is_down_is_a_503_within_seconds(postgres_url: str, broker: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listened on
        url = broker.format(closed.getsockname()[1]).replace("postgresql:", "postgresql+psycopg2:")
        app = create_app({"DATABASE_URL": postgres_url, "JOBS": "celery", "CELERY_BROKER_URL": url})
        started = time.monotonic()

        with app.app_context(), pytest.raises(QueueUnavailable) as caught:
            enqueue("purge")

    assert caught.value.code == 503
    assert time.monotonic() - started < 5


def test_a_broker_error_without_a_text_is_no_error_of_ours(celery_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(queue, "send", send)
    with celery_app.app_context(), pytest.raises(QueueUnavailable):
        enqueue("purge")


def test_every_job_is_a_task_and_the_schedule_names_tasks_only(celery_app: Flask) -> None:
    celery = celery_app.extensions["celery"]

    assert set(work.JOBS) <= set(celery.tasks)
    assert {entry["task"] for entry in celery.conf.beat_schedule.values()} == {"refresh_all_boards", "purge"}
    for entry in celery.conf.beat_schedule.values():
        assert entry["options"]["expires"] < entry["schedule"].total_seconds()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), False),
        (smtplib.SMTPServerDisconnected(), False),
        (smtplib.SMTPDataError(451, b"try later"), False),
        (smtplib.SMTPDataError(554, b"spam"), True),
        (smtplib.SMTPAuthenticationError(535, b"no"), True),
        (smtplib.SMTPRecipientsRefused({"a@example.org": (450, b"greylisted")}), False),
        (smtplib.SMTPRecipientsRefused({"a@example.org": (550, b"unknown")}), True),
    ],
)
def test_mail_is_tried_again_unless_the_server_refused_for_good(error: OSError, expected: bool) -> None:
    assert queue.is_final(error) is expected


def test_mail_that_is_not_taken_now_is_retried_later_and_later(
    celery_app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celery.exceptions import Retry

    task = celery_app.extensions["celery"].tasks["send_mail"]
    countdowns: list[float] = []

    def retry(*, exc: Exception, countdown: float, **_: object) -> Exception:
        countdowns.append(countdown)
        return Retry()

    monkeypatch.setattr(task, "retry", retry)
    monkeypatch.setattr("app.jobs.work.EmailMessage.send", lambda *_: raise_(ConnectionRefusedError()))
    for tries in (0, 1, 9):
        task.push_request(retries=tries)
        with pytest.raises(Retry):
            task.run(to="ann@example.org", subject="Hello", text="text")
        task.pop_request()

    assert countdowns == [10, 20, 600]


def raise_(error: BaseException) -> None:
    raise error
