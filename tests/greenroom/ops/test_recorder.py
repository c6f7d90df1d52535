"""One spike is one recording; what is saved is safe to open and can be replayed; a disk that fails costs a line."""

import errno
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenroom.insight.ring import RECORD, Ring, records_in
from greenroom.ops.recorder import CALM_SECONDS, PATIENCE_SECONDS, SETTLE_SECONDS, Recorder
from greenroom.ops.report import recording

from ..conftest import ManualClock
from .fakes import ABOUT, NOW, STATES, moment, request, seen, shown, snapshot

HOSTILE = "</script><script>alert(1)</script><!--\"'&\x1b[31m"


def filled(clock: ManualClock, count: int = 3, records: int = 100) -> Ring:
    ring = Ring(records, clock.now)
    for number in range(count):
        clock.advance(0.01)
        ring.finished(f"/{number % 3}", 200, clock.now() - 0.005, 0.005, [0.005, *[0.0] * 10])
    return ring


def test_a_ring_gives_back_what_was_written_oldest_first(clock: ManualClock) -> None:
    ring = filled(clock)
    ring.shed()
    ring.stalled("v.py:1", clock.now() - 0.4, 0.4)

    records = list(records_in(ring.read()))

    assert [(row["kind"], row["name"], row["status"]) for row in records] == [
        *(("request", f"/{number}", 200) for number in range(3)),
        ("shed", "shed", 503),
        ("stall", "v.py:1", 0),
    ]
    assert records[0]["by_state"][0] == pytest.approx(0.005)
    assert len(records[0]["by_state"]) == len(STATES)


def test_a_ring_is_bounded_in_memory_in_names_and_in_time(clock: ManualClock) -> None:
    ring = filled(clock, count=1000, records=64)
    newest = [row["at"] for row in records_in(ring.read())]
    for number in range(5000):
        ring.shed() if number % 2 else ring.slice(f"line {number}", clock.now(), 0.2)
    said = ring.read()
    clock.advance(61.0)

    assert (len(newest), newest) == (64, sorted(newest))
    assert len(ring._buffer) == 64 * RECORD.size
    assert len(said["names"]) <= 2001
    assert list(records_in(ring.read())) == []


def test_what_is_no_ring_is_nothing() -> None:
    answer = {"at": 1.0, "now": 1.0, "names": [], "data": "AAAA"}

    assert list(records_in(answer)) == []


class Stage:
    """A recorder, told of one second after the other."""

    def __init__(self, folder: Path, ring: Ring, kept: int = 3) -> None:
        self.ring = ring
        self.asked: list[int] = []
        self.recorder = Recorder(folder, kept, self._ask, ABOUT)
        self.now = NOW

    def _ask(self, pid: int) -> Any:
        self.asked.append(pid)
        return self.ring.read()

    def seconds(self, count: float, silent: float = 0.0, view: Any = None, **signals: float) -> int:
        """So many seconds pass like this; how many recordings there are then."""
        for _ in range(int(count)):
            self.now += 1.0
            worker = seen(said=snapshot(), silent=silent)
            history = [{"now": self.now, "lag_seconds": 0.0, **signals}]
            self.recorder.look(moment(worker, now=self.now, history=history), view or {})
            for thread in threading.enumerate():
                if thread.name == "recorder":
                    thread.join(10)
        return len(self.recorder.listing())


@pytest.fixture
def stage(tmp_path: Path, clock: ManualClock) -> Stage:
    return Stage(tmp_path / "recordings", filled(clock))


@pytest.mark.parametrize("signal", [{"lag_seconds": 1.2}, {"shed": 6.0}, {"expired": 3.0}])
def test_one_spike_is_one_recording_however_long_it_flickers(stage: Stage, signal: dict[str, float]) -> None:
    half = {name: value * 0.55 for name, value in signal.items()}

    assert stage.seconds(10) == 0
    assert stage.seconds(SETTLE_SECONDS - 1, **signal) == 0, "what follows belongs to it"
    assert stage.seconds(3, **signal) == 1
    assert stage.seconds(200, **signal) == 1
    assert stage.seconds(CALM_SECONDS * 2, **half) == 1, "not calm below the threshold, but below half of it"
    assert stage.seconds(20, **signal) == 1
    assert stage.seconds(CALM_SECONDS + 1) == 1
    assert stage.seconds(SETTLE_SECONDS + 3, **signal) == 2


def test_a_blocked_worker_is_waited_for_but_not_for_ever(stage: Stage) -> None:
    assert stage.seconds(PATIENCE_SECONDS - 5, silent=9.0, lag_seconds=9.0) == 0
    assert stage.asked == []
    assert stage.seconds(10, silent=9.0, lag_seconds=9.0) == 1


def test_it_begins_with_what_the_page_said_at_its_worst(stage: Stage) -> None:
    blocked = {"verdict": {"level": "bad", "sentence": "Worker 1 is blocked."}}
    calm = {"verdict": {"level": "ok", "sentence": "Healthy."}}
    stage.seconds(1, view=calm, lag_seconds=2.0)
    stage.seconds(1, view=blocked, lag_seconds=2.0)

    stage.seconds(SETTLE_SECONDS + 1, view=calm)

    (row,) = stage.recorder.listing()
    assert b"<h1>Worker 1 is blocked.</h1>" in (stage.recorder.read(row["name"]) or b"")


def test_only_the_newest_are_kept_and_no_other_file_is_touched(stage: Stage) -> None:
    stage.recorder.folder.mkdir()
    (stage.recorder.folder / "notes.html").write_text("mine")
    names = [stage.recorder.save(moment(seen()), "asked for") for _ in range(5)]

    assert len(stage.recorder.listing()) == 3
    assert (stage.recorder.folder / "notes.html").read_text() == "mine"
    assert stage.recorder.read(str(names[-1])) is not None
    assert stage.recorder.read("notes.html") is None
    assert stage.recorder.read("../" + str(names[-1])) is None
    assert (stage.recorder.folder / str(names[-1])).stat().st_mode & 0o077 == 0


def test_a_full_disk_leaves_nothing_half_saved(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain: Callable[..., Any] = os.fdopen

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *exc_info: object) -> None:
            self.file.close()

        def write(self, text: str) -> None:
            self.file.write(text[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", lambda *args, **options: Full(plain(*args, **options)))

    assert stage.recorder.save(moment(seen()), "asked for") is None
    assert list(stage.recorder.folder.iterdir()) == []
    assert "No space left on device" in caplog.text


def test_a_recording_has_no_script_and_nothing_breaks_out_of_its_text() -> None:
    rows = [
        {"kind": kind, "status": 200, "name": HOSTILE, "at": 100.0, "seconds": 0.5, "by_state": [0.5] * 11, "worker": 1}
        for kind in ("request", "shed", "stall", "slice")
    ]
    page_view = shown(seen(said=snapshot(in_flight=[request(route=HOSTILE, detail=HOSTILE, id=HOSTILE)])))

    page = recording(rows, HOSTILE, 101.0, {**ABOUT, "app": HOSTILE}, page_view, [2])

    assert page.count("<script") == 1
    assert page.count("</script") == 1
    assert "<!--" not in page
    assert "\x1b" not in page
    block = re.search(r'<script type="application/json" id="arrivals">(.*)</script>', page)
    assert block
    said = json.loads(block[1])
    assert said["format"] == "greenroom-arrivals/1"
    assert [row[0] for row in said["arrivals"]] == [0.0, 0.0]
    assert "Worker 2 did not answer" in page


def test_an_empty_minute_is_a_page_too() -> None:
    assert '"arrivals":[]' in recording([], "asked for", 1.0, ABOUT, {})
