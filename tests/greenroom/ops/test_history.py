"""History on disk: kept for a week, bounded, and lost without harm to the requests when the disk fails."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from greenroom.ops.history import MOST_WAITING, History, file_in
from greenroom.ops.hours import Hours
from greenroom.ops.incidents import Incident
from tests.greenroom.conftest import ManualClock

from . import fakes

NOW = 1_790_000_000.0
DAY = 86_400.0


@pytest.fixture
def wall() -> ManualClock:
    clock = ManualClock()
    clock.seconds = NOW
    return clock


@pytest.fixture
def open_history(tmp_path: Path, wall: ManualClock) -> Iterator[Callable[[], History]]:
    made: list[History] = []

    def begin() -> History:
        history = History(tmp_path / "deep" / "history.sqlite3", wall=wall.now)
        history.start()
        made.append(history)
        return history

    yield begin
    for history in made:
        history.stop()


def incident(began: float, ended: float | None = None) -> Incident:
    return Incident("blocked", "bad", "Worker 1 is blocked by a.py:3.", "Move it.", began, ended)


def test_what_is_written_is_read_also_by_the_next_process(open_history: Callable[[], History]) -> None:
    history = open_history()
    history.sample(10, NOW - 55, {"requests": 20.0, "p95": 0.2})
    history.incident(incident(NOW - 50))
    history.incident(incident(NOW - 50, NOW - 40))
    history.mark(NOW - 45, "reload", "reload")
    history.routes(NOW - 30, [("/orders", 12.0, 1.0, 2.4, 0.3)])
    history.stop()

    found = open_history().read(NOW - 400, NOW)

    assert [(row["at"], row["requests"], row["p95"], row["p50"]) for row in found["samples"]] == [
        (NOW - 60, 20.0, 0.2, None)
    ]
    assert [(row["cause"], row["began"], row["ended"]) for row in found["incidents"]] == [
        ("blocked", NOW - 50, NOW - 40)
    ]
    assert [row["kind"] for row in found["marks"]] == ["reload"]
    assert [(row["route"], row["count"]) for row in found["routes"]] == [("/orders", 12.0)]
    assert (found["step"], found["failure"]) == (10, "")


def test_an_incident_of_a_process_that_was_killed_ends_with_its_last_sample(
    open_history: Callable[[], History],
) -> None:
    first = open_history()
    first.incident(incident(NOW - 500))
    first.sample(10, NOW - 300, {"requests": 1.0})
    first.stop()

    second = open_history()
    second.stop()

    (row,) = second.read(NOW - 1000, NOW)["incidents"]
    assert row["ended"] == NOW - 300


def test_what_is_older_than_its_time_goes(open_history: Callable[[], History], wall: ManualClock) -> None:
    history = open_history()
    for step in (10, 300):
        for ago in (0.5 * DAY, 2 * DAY, 8 * DAY):
            history.sample(step, NOW - ago, {"requests": ago})
    history.incident(incident(NOW - 8 * DAY, NOW - 8 * DAY + 60))
    history.mark(NOW - 8 * DAY, "reload", "reload")
    history.stop()
    wall.advance(400)
    history = open_history()
    history.mark(NOW, "reload", "reload")
    history.stop()

    fine, coarse = history.read(NOW - 0.9 * DAY, NOW), history.read(NOW - 9 * DAY, NOW)
    assert [row["requests"] for row in fine["samples"]] == [0.5 * DAY]
    assert [row["requests"] for row in coarse["samples"]] == [2 * DAY, 0.5 * DAY]
    assert coarse["incidents"] == []
    assert len(coarse["marks"]) == 1


def test_a_route_is_shown_beside_its_day_before(open_history: Callable[[], History]) -> None:
    history = open_history()
    history.routes(NOW - 600, [("/a", 10.0, 0.0, 1.0, 0.1), ("/b", 1.0, 0.0, 1.0, 0.1)])
    history.routes(NOW - 600 - DAY, [("/a", 20.0, 0.0, 1.0, 0.1)])
    history.stop()

    said = history.route("/a", NOW - 3600, NOW)

    assert [row["count"] for row in said["now"]] == [10.0]
    assert [row["count"] for row in said["day_before"]] == [20.0]
    assert said["now"][0]["at"] == said["day_before"][0]["at"]


def test_a_file_that_is_no_database_is_put_aside(
    open_history: Callable[[], History], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "deep" / "history.sqlite3"
    path.parent.mkdir()
    path.write_bytes(b"no database at all, but long enough to have a head " * 40)

    history = open_history()
    history.mark(NOW, "reload", "reload")
    history.stop()

    assert len(history.read(NOW - 10, NOW)["marks"]) == 1
    assert [each.read_bytes()[:11] for each in path.parent.glob("*.broken-*")] == [b"no database"]
    assert "is put aside" in caplog.text


def test_a_place_that_can_not_be_written_costs_the_history_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    history = History(tmp_path / "file" / "history.sqlite3")
    history.start()
    for _ in range(5):
        history.mark(NOW, "reload", "reload")
    history.stop()

    found = history.read(0, NOW)
    assert found["marks"] == []
    assert "can't be written" in found["failure"]
    assert caplog.text.count("stands still") == 1


def test_a_file_that_is_locked_is_tried_again(open_history: Callable[[], History], tmp_path: Path) -> None:
    history = open_history()
    history.mark(NOW - 3, "reload", "one")
    history.stop()
    with closing(sqlite3.connect(tmp_path / "deep" / "history.sqlite3", isolation_level=None)) as other:
        other.execute("begin exclusive")
        again = open_history()
        again.mark(NOW - 2, "reload", "two")
        other.execute("rollback")
    again.stop()

    assert [row["text"] for row in again.read(NOW - 10, NOW)["marks"]] == ["one", "two"]


def test_a_disk_that_hangs_does_not_stop_the_page(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    history = History(tmp_path / "history.sqlite3")
    history._thread = object()  # type: ignore[assignment]  # nobody writes

    for number in range(MOST_WAITING + 10):
        history.mark(float(number), "reload", "reload")

    assert history.failure.startswith("the disk takes nothing")
    assert caplog.text.count("the disk takes nothing") == 1


def test_servers_that_share_a_folder_do_not_share_a_file(tmp_path: Path) -> None:
    files = {
        file_in(tmp_path, bind).name for bind in (["127.0.0.1:8000"], ["127.0.0.1:8001"], ["unix:/run/a.sock"], [])
    }

    assert files == {
        "history-127-0-0-1-8000.sqlite3",
        "history-127-0-0-1-8001.sqlite3",
        "history-unix-run-a-sock.sqlite3",
        "history-server.sqlite3",
    }


def test_moments_become_samples_routes_and_marks(open_history: Callable[[], History]) -> None:
    history = open_history()
    hours = Hours(history)
    base = NOW - NOW % 300
    events: list[dict[str, object]] = []
    for second in range(0, 640, 2):
        busy = fakes.seen(said=fakes.snapshot(routes={"/a": fakes.route(count=10 + second)}))
        if second == 100:
            events.append({"at": base + 100, "since": 100.0, "kind": "reload", "worker": 0, "pid": 0})
            events.append({"at": base + 100, "since": 100.0, "kind": "ended", "worker": 1, "pid": 7})
        moment = fakes.moment(
            busy, at=base + second, now=float(second), grown={"requests": float(second)}, events=list(events)
        )
        recordings = [{"name": "old.html"}, *([{"name": "new.html"}] if second > 200 else [])]
        hours.look(moment, {"total": {"in_flight": second % 7, "p95": 0.5}, "recordings": recordings})
    history.stop()

    found = history.read(base, base + 640)
    assert sum(row["requests"] for row in found["samples"]) == pytest.approx(630, abs=12)
    assert {row["in_flight"] for row in found["samples"]} <= {4.0, 5.0, 6.0}
    assert {row["p95"] for row in found["samples"]} == {0.5}
    assert [(row["at"], row["route"], row["count"]) for row in found["routes"]] == [
        (base + 300, "/a", 300.0),
        (base + 600, "/a", 300.0),
    ]
    assert [(row["kind"], row["text"]) for row in found["marks"]] == [("reload", "reload"), ("recording", "new.html")]
