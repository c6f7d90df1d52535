"""Looking at workers that come and go: who died is told from who ended, and nothing is lost or kept for ever."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom.ops.collect import Collector, Moment
from greenroom.ops.metrics import exposition
from greenroom.ops.socket_folder import SocketFolder
from greenroom.ops.view import view
from greenroom.worker.balance import Scoreboard, State

from ..conftest import ManualClock
from .fakes import route, snapshot


class Owner:
    """The owner of a line of the scoreboard."""


class Workers:
    """All of them are this process, whichever pid they say: only one runs at a time."""

    def __init__(self, board: Scoreboard, clock: ManualClock, socket_folder: SocketFolder) -> None:
        self.board, self.clock, self.socket_folder = board, clock, socket_folder
        self.said: dict[int, Any] = {}
        self.forgotten: list[int] = []

    # An Asker, as the collector sees it.
    def ask(self, workers: Any, asked: Any) -> None:
        self.asked = [pid for pid, _ in workers]

    def wait(self, seconds: float) -> dict[int, Any]:
        return {pid: self.said.get(pid) for pid in self.asked if pid in self.said}

    def forget(self, pids: Any) -> None:
        self.forgotten += pids


@pytest.fixture
def socket_folder() -> Iterator[SocketFolder]:
    made = SocketFolder.make()
    yield made
    made.remove()


@pytest.fixture
def workers(clock: ManualClock, socket_folder: SocketFolder) -> Workers:
    return Workers(Scoreboard(lines=8), clock, socket_folder)


@pytest.fixture
def collector(workers: Workers, clock: ManualClock) -> Collector:
    asker: Any = workers
    return Collector(workers.board, workers.socket_folder, cores=2, asker=asker, now=clock.now)


def test_a_hundred_recycles_and_kills_lose_nothing_and_leave_nothing(
    workers: Workers, collector: Collector, clock: ManualClock
) -> None:
    pid = os.getpid()
    requests = []
    routes = []
    for life in range(100):
        owner = Owner()
        line = workers.board.take(owner)
        line.pid, line.state, line.heartbeat = pid, State.SERVING, clock.now()
        line.requests = 10
        workers.said[pid] = snapshot(f"life-{life}", {"/": route(8)})
        collector.tick()
        line.requests = 12
        if life % 2:
            line.state = State.EMPTY
            workers.socket_folder.last_words(pid).write_text(json.dumps(snapshot(f"life-{life}", {"/": route(12)})))
        del owner
        workers.board.sweep()
        clock.advance(1.0)
        moment = collector.tick()
        requests.append(moment.totals["requests"])
        routes.append(moment.sums["routes"]["/"]["count"])

    assert requests == [12 * (life + 1) for life in range(100)]
    assert routes == sorted(routes)
    assert routes[-1] == 50 * 8 + 50 * 12, "of the killed as last seen, of the others all"
    assert (moment.totals["workers_died"], moment.totals["workers_ended"]) == (50, 100)
    assert [event["kind"] for event in moment.events][-4:] == ["started", "died", "started", "ended"]
    assert len(moment.events) <= 50
    assert collector.workers == {}
    assert [path.name for path in Path(workers.socket_folder.folder).iterdir()] == ["sums"]


def test_the_stall_that_a_worker_was_killed_in_is_counted_and_told(
    workers: Workers, collector: Collector, clock: ManualClock
) -> None:
    """It has not ended, so the worker could not count it; one that was killed for nothing has none."""
    pid = os.getpid()
    block = {"seconds": 3.0, "line": "shop/views.py:41", "route": "/search", "stack": [], "holds_gil": False}
    for life, is_blocked in (("one", True), ("two", False)):
        owner = Owner()
        line = workers.board.take(owner)
        line.pid, line.state, line.heartbeat, line.stalls = pid, State.SERVING, clock.now(), 1.0
        workers.said[pid] = snapshot(life, stalls={"total": 1, "seconds": 0.5, "current": None})
        collector.tick()
        for _ in range(3 if is_blocked else 0):
            clock.advance(1.0)
            workers.said[pid] = snapshot(life, stalls={"total": 1, "seconds": 0.5, "current": block})
            collector.tick()
        del workers.said[pid], owner
        workers.board.sweep()
        moment = collector.tick()

    seen_now = view(moment, {})
    (row,) = seen_now["stalls"]["top"]
    assert (row["line"], row["count"], row["seconds"], row["route"]) == ("shop/views.py:41", 1, 3.0, "/search")
    assert (moment.sums["stalls"]["total"], moment.sums["stalls"]["seconds"]) == (3, 4.0)
    assert "greenroom_stalls_total 3\n" in exposition(moment)
    died = [event["stall"] for event in moment.events if event["kind"] == "died"]
    assert died == [{"line": "shop/views.py:41", "route": "/search", "seconds": 3.0, "holds_gil": False}, None]


def test_what_was_counted_for_a_stall_in_a_kill_outlives_the_ops_process(
    workers: Workers, collector: Collector
) -> None:
    collector.counters.add_last_stall("v.py:1", 2.0, "/a", 1.7e9)
    collector.tick()

    asker: Any = workers
    again = Collector(workers.board, workers.socket_folder, cores=2, asker=asker)

    assert again.counters.total()["lines"]["v.py:1"]["seconds"] == 2.0


def test_events_and_metrics_agree_on_who_died(workers: Workers, collector: Collector, clock: ManualClock) -> None:
    """Told to go at once, a worker drains for a moment that nobody sees, and says no last words."""
    owners = [Owner(), Owner()]
    for owner, pid in zip(owners, (os.getpid(), os.getppid()), strict=True):
        line = workers.board.take(owner)
        line.pid, line.state, line.heartbeat = pid, State.SERVING, clock.now()
        workers.said[pid] = snapshot(f"life-{pid}")
    collector.tick()
    line.state = State.DRAINING
    owners.pop()
    del owner
    workers.board.sweep()
    told_to_go = collector.tick()
    owners.pop()
    workers.board.sweep()
    killed = collector.tick()

    def died(moment: Moment) -> list[int]:
        return [event["pid"] for event in moment.events if event["kind"] == "died"]

    assert (died(told_to_go), told_to_go.totals["workers_died"]) == ([], 0)
    assert (died(killed), killed.totals["workers_died"]) == ([os.getpid()], 1)


def test_a_worker_that_was_killed_and_could_still_say_by_what_counts_its_stall_once(
    workers: Workers, collector: Collector, clock: ManualClock
) -> None:
    last = {"line": "v.py:7", "route": "/a", "seconds": 30.0, "holds_gil": False}
    row = {"line": "v.py:7", "count": 1, "seconds": 30.0}
    pid, owner = os.getpid(), Owner()
    line = workers.board.take(owner)
    line.pid, line.state, line.heartbeat = pid, State.SERVING, clock.now()
    workers.said[pid] = snapshot("one")
    collector.tick()
    said = snapshot("one", stalls={"total": 1, "seconds": 30.0, "top": [row], "last": [last]})
    workers.socket_folder.last_words(pid).write_text(json.dumps(said))
    del owner
    workers.board.sweep()

    moment = collector.tick()

    assert moment.events[-1]["kind"] == "died"
    assert moment.events[-1]["stall"] == last
    assert moment.sums["stalls"]["total"] == 1


def test_a_worker_whose_last_words_say_no_stall_was_blocked_by_what_was_seen(
    workers: Workers, collector: Collector, clock: ManualClock
) -> None:
    seen = {"line": "v.py:7", "route": "/a", "stack": [], "holds_gil": True}
    pid, owner = os.getpid(), Owner()
    line = workers.board.take(owner)
    line.pid, line.state, line.heartbeat = pid, State.SERVING, clock.now()
    workers.said[pid] = snapshot("one", stalls={"total": 0, "seconds": 0.0, "top": [], "last": [], "current": seen})
    clock.advance(2.0)
    collector.tick()
    workers.socket_folder.last_words(pid).write_text(json.dumps(snapshot("one")))
    del owner
    workers.board.sweep()

    moment = collector.tick()

    assert moment.events[-1]["kind"] == "died"
    assert moment.events[-1]["stall"]["line"] == "v.py:7"
    assert moment.sums["stalls"]["total"] == 1


def test_line_of_a_worker_that_was_blocked_before_it_could_answer_is_looked_for(
    workers: Workers, clock: ManualClock, socket_folder: SocketFolder
) -> None:
    pid, owner = os.getpid(), Owner()
    line = workers.board.take(owner)
    line.pid, line.state, line.heartbeat = pid, State.SERVING, clock.now()
    socket_folder.descriptors(pid).write_text('{"pipe": 7, "ring": 8}')
    asker: Any = workers
    found = {"line": "v.py:7", "route": "", "stack": [], "holds_gil": True}
    collector = Collector(
        workers.board, socket_folder, cores=2, asker=asker, now=clock.now,
        peek=lambda pid, where: found if where == {"pipe": 7, "ring": 8} else None,
    )  # fmt: skip
    collector.tick()
    clock.advance(5.0)

    moment = collector.tick()
    del owner
    workers.board.sweep()
    collector.tick()

    assert moment.workers[0].current_stall() == found
    assert not socket_folder.descriptors(pid).exists()


def test_each_worker_has_its_own_rates_and_percentile(
    workers: Workers, collector: Collector, clock: ManualClock
) -> None:
    owner = Owner()
    line = workers.board.take(owner)
    line.pid, line.state = os.getpid(), State.SERVING
    for second in range(30):
        clock.advance(1.0)
        line.heartbeat, line.requests, line.shed, line.errors = clock.now(), 50.0 * second, 5.0 * second, 10.0 * second
        workers.said[os.getpid()] = snapshot("one", {"/": route(50 * second, bucket=1 if second < 20 else 2)})
        moment = collector.tick()

    (row,) = view(moment, {})["workers"]

    assert (row["requests_rate"], row["goodput_rate"], row["shed_rate"]) == (50.0, 40.0, 5.0)
    assert 0.1 < row["p95"] <= 1.0, "of the last seconds"


def test_a_process_that_is_gone_before_its_arbiter_knows_is_seen_at_once(
    workers: Workers, collector: Collector, clock: ManualClock
) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    owner = Owner()
    line = workers.board.take(owner)
    line.pid, line.state, line.heartbeat = child, State.SERVING, clock.now()

    (seen,) = collector.tick().workers

    assert seen.is_gone, "a zombie"
    os.waitpid(child, 0)


def test_what_was_said_while_nobody_looked_counts(workers: Workers, clock: ManualClock) -> None:
    """The ops process was dead while a worker ended."""
    workers.socket_folder.last_words(4_000_001).write_text(json.dumps(snapshot("gone", {"/": route(7)})))
    workers.socket_folder.last_words(4_000_002).write_text('{"start_id": "half')
    asker: Any = workers

    moment = Collector(workers.board, workers.socket_folder, cores=2, asker=asker, now=clock.now).tick()

    assert moment.sums["routes"]["/"]["count"] == 7


def test_who_was_killed_together_with_the_ops_process_still_counts(
    workers: Workers, collector: Collector, clock: ManualClock
) -> None:
    """One of two workers, and what it counted is not on the scoreboard."""
    asker: Any = workers
    owners = [Owner(), Owner()]
    lines = [workers.board.take(owner) for owner in owners]
    for line, pid in zip(lines, (os.getpid(), os.getppid()), strict=True):
        line.pid, line.state, line.heartbeat = pid, State.SERVING, clock.now()
        workers.said[pid] = snapshot(f"life-{pid}", {"/": route(100)})
    shown = [collector.tick().sums["routes"]["/"]["count"]]

    owners.pop()
    workers.board.sweep()
    for _ in range(2):
        again = Collector(workers.board, workers.socket_folder, cores=2, asker=asker, now=clock.now)
        shown.append(again.tick().sums["routes"]["/"]["count"])
    workers.said[os.getpid()] = snapshot("its-pid-was-used-again", {"/": route(7)})
    shown.append(again.tick().sums["routes"]["/"]["count"])

    assert shown == [200, 200, 200, 207]


def test_a_server_without_work_has_nothing_written(workers: Workers, collector: Collector, clock: ManualClock) -> None:
    owner = Owner()
    line = workers.board.take(owner)
    line.pid, line.state = os.getpid(), State.SERVING
    written = []
    for second in range(3):
        workers.said[os.getpid()] = snapshot("one", {"/": route(5)}, loop={"turns": 20 * second})
        collector.tick()
        written.append(workers.socket_folder.counters.stat().st_mtime_ns)

    assert len(set(written)) == 1


def test_a_worker_that_answers_nonsense_is_one_that_said_nothing(workers: Workers, collector: Collector) -> None:
    owner = Owner()
    line = workers.board.take(owner)
    line.pid, line.state = os.getpid(), State.SERVING
    for nonsense in ("text", {"error": "KeyError"}, None, 7):
        workers.said[os.getpid()] = nonsense
        (seen,) = collector.tick().workers
        assert seen.snapshot is None


@pytest.mark.parametrize(
    ("ending", "kind"), [({"code": 0}, "ended"), ({"signal": "SIGTERM"}, "ended"), ({"signal": "SIGSEGV"}, "died")]
)
def test_a_worker_that_was_dismissed_before_it_began_has_not_died(
    workers: Workers, collector: Collector, clock: ManualClock, ending: dict[str, Any], kind: str
) -> None:
    """A reload that is given up ends those that are about to begin."""
    owner = Owner()
    line = workers.board.take(owner)
    line.pid, line.state, line.heartbeat = os.getpid(), State.BOOTING, clock.now()
    collector.tick()
    workers.socket_folder.ending(os.getpid()).write_text(json.dumps(ending))
    del owner
    workers.board.sweep()
    clock.advance(1)

    moment = collector.tick()

    assert [event["kind"] for event in moment.events] == ["started", kind]


def test_a_worker_could_not_start_when_it_says_so_and_not_when_it_is_noticed(
    collector: Collector, socket_folder: SocketFolder, clock: ManualClock
) -> None:
    """Else the failure of one reload is taken for that of the next one, which came before it was noticed."""
    socket_folder.boot_failure(7).write_text(json.dumps({"error": "KeyError", "since": clock.now() - 2.5}))
    socket_folder.boot_failure(8).write_text(json.dumps({"error": "KeyError"}))

    found = {row["pid"]: row["since"] for row in collector.tick().boot_failures}

    assert found == {7: clock.now() - 2.5, 8: clock.now()}
