"""The arbiter's part of replacing workers, on an arbiter without processes; and what of gunicorn it relies on."""

import contextlib
import errno
import inspect
import os
import queue
import signal
from types import SimpleNamespace
from typing import Any

import gunicorn
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from greenroom.worker import recycle
from greenroom.worker.balance import Line, Scoreboard, State
from greenroom.worker.recycle import LONGEST_BACKOFF_SECONDS, Fleet


class FakeWorker:
    age = 0
    line: Line


class FakeArbiter:
    """gunicorn's arbiter as a Fleet uses it. Processes are objects that do as they are told."""

    WORKER_BOOT_ERROR = 3

    def __init__(self, board: Scoreboard, workers: int) -> None:
        self.board = board
        self.num_workers = workers
        self.cfg = SimpleNamespace(workers=workers, uid=0, gid=0)
        self.cfg.set = lambda name, value: setattr(self.cfg, name, value)
        self.WORKERS: dict[int, Any] = {}
        self.LISTENERS: list[object] = [object()]
        self.could_not_start: set[int] = set()
        self.SIG_QUEUE: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.worker_age = 0
        self.next_pid = 1
        self.killed: list[int] = []
        self.told: list[int] = []
        self.gone: set[int] = set()
        self.keeps_those_that_could_not_start = False  # until gunicorn 26

    def signal(self, number: int, frame: Any) -> None:
        raise AssertionError("the fleet has its own")

    manage_workers = signal

    def spawn_worker(self) -> None:
        worker = FakeWorker()
        worker.line = self.board.take(worker)
        self.WORKERS[self.next_pid] = worker
        self.next_pid += 1

    def kill_worker(self, pid: int, number: int) -> None:
        assert number == signal.SIGTERM
        self.killed.append(pid)
        self.WORKERS[pid].line.state = State.DRAINING

    def kill_workers(self, number: int) -> None:
        self.told.append(number)
        for pid in self.gone & set(self.WORKERS):
            del self.WORKERS[pid]

    def reap_workers(self) -> None:
        for pid in list(self.could_not_start):
            self.could_not_start.discard(pid)
            if not self.keeps_those_that_could_not_start:
                del self.WORKERS[pid]
            self.gone.add(pid)
            raise HaltServer("App failed to load.", 4)

    # Events that a test makes happen.
    def boot(self, *pids: int) -> None:
        for pid in pids:
            self.WORKERS[pid].line.state = State.SERVING

    def end(self, *pids: int) -> None:
        for pid in pids:
            del self.WORKERS[pid]

    def state(self, pid: int) -> float:
        return float(self.WORKERS[pid].line.state)

    def accepting(self) -> list[int]:
        return [pid for pid in self.WORKERS if self.state(pid) in (State.SERVING, State.RETIRING)]


class World:
    def __init__(self, workers: int) -> None:
        self.now = 100.0
        self.server = FakeArbiter(Scoreboard(), workers)
        self.fleet = Fleet(self.server, self.server.board, lambda: self.now)
        self.fleet.install()
        self.fleet.manage()
        self.server.boot(*self.server.WORKERS)
        self.fleet.manage()


@pytest.fixture(autouse=True)
def _no_stagger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycle, "STAGGER_SECONDS", 0.0)


@pytest.fixture
def world() -> World:
    return World(workers=3)


def test_as_many_workers_as_wanted_are_started(world: World) -> None:
    assert list(world.server.WORKERS) == [1, 2, 3]


def test_a_retiring_worker_serves_until_its_replacement_does(world: World) -> None:
    server = world.server
    server.WORKERS[2].line.state = State.RETIRING

    world.fleet.manage()
    before = (list(server.WORKERS), list(server.killed))
    server.boot(4)
    world.fleet.manage()

    assert before == ([1, 2, 3, 4], [])
    assert server.killed == [2]


def test_all_retiring_together_take_turns(world: World) -> None:
    server = world.server
    for worker in server.WORKERS.values():
        worker.line.state = State.RETIRING
    capacities = []

    for newest in (4, 5, 6):
        world.fleet.manage()
        capacities.append(len(server.accepting()))
        assert len(server.WORKERS) == 4, "one replacement at a time"
        server.boot(newest)
        world.fleet.manage()
        capacities.append(len(server.accepting()))
        server.end(server.killed[-1])

    assert server.killed == [1, 2, 3]
    assert min(capacities) == 3
    assert list(server.WORKERS) == [4, 5, 6]


def test_a_reload_stops_an_old_worker_for_each_new_one_that_serves(world: World) -> None:
    server = world.server
    world.fleet.begin_reload()
    world.fleet.manage()
    started = list(server.WORKERS)

    server.boot(5)
    world.fleet.manage()
    after_one = list(server.killed)
    server.boot(4, 6)
    world.fleet.manage()

    assert started == [1, 2, 3, 4, 5, 6]
    assert after_one == [1]
    assert server.killed == [1, 2, 3]


def test_gunicorn_is_told_to_replace_nobody_itself_and_new_workers_see_the_real_number(world: World) -> None:
    world.fleet.begin_reload()
    during = world.server.cfg.workers

    world.fleet.manage()

    assert during == 0
    assert world.server.cfg.workers == 3


def test_a_reload_with_code_that_does_not_start_keeps_the_old_workers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    server = world.server
    world.fleet.begin_reload()
    world.fleet.manage()

    server.end(5)
    world.fleet.manage()

    assert server.killed == [4, 6]
    assert server.accepting() == [1, 2, 3]
    assert "reload given up" in caplog.text
    server.end(4, 6)
    world.now += 1000
    world.fleet.manage()
    assert list(server.WORKERS) == [1, 2, 3]


def test_the_next_reload_after_a_failed_one_starts_at_once(world: World) -> None:
    server = world.server
    world.fleet.begin_reload()
    world.fleet.manage()
    server.end(4, 5, 6)
    world.fleet.manage()

    world.fleet.begin_reload()
    world.fleet.manage()

    assert list(server.WORKERS) == [1, 2, 3, 7, 8, 9]


def test_a_reload_in_a_reload_stops_first_what_does_not_serve_yet(world: World) -> None:
    server = world.server
    world.fleet.begin_reload()
    world.fleet.manage()

    world.fleet.begin_reload()
    world.fleet.manage()

    assert server.killed == [4, 5, 6]
    assert server.accepting() == [1, 2, 3]
    assert list(server.WORKERS) == [1, 2, 3, 4, 5, 6]  # twice as many as are wanted, and not more

    server.end(4, 5, 6)
    world.fleet.manage()

    assert list(server.WORKERS) == [1, 2, 3, 7, 8, 9]


def test_a_worker_that_dies_is_replaced_at_once(world: World) -> None:
    world.server.end(2)

    world.fleet.manage()

    assert list(world.server.WORKERS) == [1, 3, 4]


def test_a_worker_that_somebody_else_stopped_is_replaced_while_it_drains(world: World) -> None:
    world.server.WORKERS[1].line.state = State.DRAINING

    world.fleet.manage()

    assert list(world.server.WORKERS) == [1, 2, 3, 4]
    assert world.server.killed == []


def test_workers_that_can_not_start_are_tried_less_and_less_often(world: World) -> None:
    world.server.end(2)
    attempts = 0

    for _ in range(120):
        world.fleet.manage()
        booting = [pid for pid in world.server.WORKERS if world.server.state(pid) == State.BOOTING]
        attempts += len(booting)
        world.server.end(*booting)
        world.now += 1.0

    assert 5 <= attempts <= 10
    assert world.fleet.spawn_not_before - world.now <= LONGEST_BACKOFF_SECONDS
    assert world.server.accepting() == [1, 3]


@pytest.mark.parametrize(("causes", "is_given_up"), [((7.0, 7.0, 7.0), True), ((7.0, 8.0, 7.0, 8.0), False)])
def test_a_server_that_never_starts_ends_when_it_fails_in_the_same_way(
    causes: tuple[float, ...], is_given_up: bool
) -> None:
    server = FakeArbiter(Scoreboard(), 1)
    now = [100.0]
    fleet = Fleet(server, server.board, lambda: now[0])
    fleet.manage()

    def fail_each_time() -> None:
        for cause in causes:
            for pid in list(server.WORKERS):
                server.WORKERS[pid].line.boot_cause = cause
                server.end(pid)
            fleet.manage()
            now[0] += 60
            fleet.manage()

    if is_given_up:
        with pytest.raises(HaltServer):
            fail_each_time()
    else:
        fail_each_time()
        assert len(server.WORKERS) == 1, "it is tried again"


def test_once_a_worker_starts_again_failures_are_forgotten(world: World) -> None:
    world.server.end(2)
    world.fleet.manage()
    world.server.end(4)
    world.fleet.manage()
    world.now += 60
    world.fleet.manage()

    world.server.boot(5)
    world.fleet.manage()

    assert world.fleet.failures == 0


def test_ttin_starts_a_worker_and_ttou_stops_the_oldest_once(world: World) -> None:
    world.server.num_workers = 4
    world.fleet.manage()
    started = list(world.server.WORKERS)
    world.server.boot(4)

    world.server.num_workers = 2
    for _ in range(3):
        world.fleet.manage()

    assert started == [1, 2, 3, 4]
    assert world.server.killed == [1, 2], "no worker gets the signal twice"


def test_a_second_sigterm_means_quit_but_one_that_came_twice_does_not(world: World) -> None:
    world.server.signal(signal.SIGTERM, None)
    world.server.signal(signal.SIGTERM, None)
    world.now += 2
    world.server.signal(signal.SIGTERM, None)

    got = [world.server.SIG_QUEUE.get_nowait() for _ in range(3)]

    assert got == [signal.SIGTERM, signal.SIGTERM, signal.SIGQUIT]
    assert world.server.board.is_stopping


def test_gunicorn_still_is_what_the_fleet_takes_over_from() -> None:
    """If this fails with a new gunicorn, read recycle.py beside its arbiter.py before changing anything."""
    run, start, init_signals = (inspect.getsource(getattr(Arbiter, name)) for name in ("run", "start", "init_signals"))
    reload, stop = inspect.getsource(Arbiter.reload), inspect.getsource(Arbiter.stop)

    assert gunicorn.version_info[0] == 27
    assert run.count("self.manage_workers()") == 2
    assert run.index("self.murder_workers()") < run.rindex("self.manage_workers()")
    assert start.index("self.cfg.on_starting(self)") < start.index("self.init_signals()")
    assert "signal.signal(s, self.signal)" in init_signals
    assert (
        reload.index("self.cfg.on_reload(self)")
        < reload.index("last_worker_age = self.worker_age")
        < reload.index("for _ in range(self.cfg.workers)")
        < reload.index("self.manage_workers()")
        < reload.index("if oldest > last_worker_age")
    )
    assert "if pending_sig in (signal.SIGINT, signal.SIGQUIT)" in stop
    assert "self.manage_workers" not in stop


def test_reloads_that_come_during_one_are_one_more_afterwards(world: World) -> None:
    server, fleet = world.server, world.fleet
    fleet.on_signal(signal.SIGHUP, None)
    for _ in range(5):
        fleet.on_signal(signal.SIGHUP, None)
    assert server.SIG_QUEUE.qsize() == 1

    server.SIG_QUEUE.get_nowait()
    fleet.begin_reload()
    fleet.manage()
    for _ in range(5):
        fleet.on_signal(signal.SIGHUP, None)
    assert server.SIG_QUEUE.empty()

    server.boot(4, 5, 6)
    fleet.manage()
    server.end(1, 2, 3)
    fleet.manage()
    assert server.SIG_QUEUE.get_nowait() == signal.SIGHUP
    assert server.SIG_QUEUE.empty()


def test_reload_that_hangs_keeps_the_next_one_waiting_for_a_moment_only(world: World) -> None:
    server, fleet = world.server, world.fleet
    fleet.begin_reload()
    fleet.manage()
    fleet.on_signal(signal.SIGHUP, None)
    fleet.manage()
    assert server.SIG_QUEUE.empty()

    world.now += recycle.COALESCE_SECONDS
    fleet.manage()

    assert server.SIG_QUEUE.get_nowait() == signal.SIGHUP


def test_dismissed_worker_that_has_not_heard_is_told_again_until_it_has(world: World) -> None:
    server, fleet = world.server, world.fleet
    server.num_workers = 2
    fleet.manage()
    [dismissed] = server.killed
    server.boot(dismissed)  # the signal was lost

    fleet.manage()
    assert server.killed == [dismissed]
    world.now += recycle.TELL_AGAIN_SECONDS
    fleet.manage()
    world.now += recycle.TELL_AGAIN_SECONDS
    fleet.manage()

    assert server.killed == [dismissed, dismissed]


def test_workers_that_drain_never_leave_nobody_to_serve(world: World) -> None:
    """After TTOU the many that still drain are no reason not to replace the one that died."""
    server, fleet = world.server, world.fleet
    server.num_workers = 1
    fleet.manage()
    server.end(*server.accepting())

    fleet.manage()

    assert list(server.WORKERS)[-1] == 4


def test_signal_that_reaches_a_worker_before_its_own_handlers_marks_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)

    world.fleet.on_signal(signal.SIGTERM, None)

    assert not world.server.board.is_stopping
    assert world.server.SIG_QUEUE.empty()


def test_signals_are_held_back_while_a_worker_is_forked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    spawn = world.server.spawn_worker

    def spawn_and_look() -> None:
        held.append(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        spawn()

    monkeypatch.setattr(world.server, "spawn_worker", spawn_and_look)
    world.server.end(1)

    world.fleet.manage()

    assert held == [True]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_fork_that_fails_is_tried_again_and_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    spawn = world.server.spawn_worker
    world.server.end(1)
    with monkeypatch.context() as patched:
        patched.setattr(world.server, "spawn_worker", fail)
        world.fleet.manage()
        world.fleet.manage()

    assert caplog.text.count("no worker can be started") == 1
    monkeypatch.setattr(world.server, "spawn_worker", spawn)
    world.now += 1
    world.fleet.manage()
    assert list(world.server.WORKERS) == [2, 3, 4]


@pytest.mark.parametrize(
    ("exc", "has_served", "ends"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False, True),
        (RuntimeError("/srv/none doesn't exist. Can't create workertmp."), False, True),
        (OSError(errno.EMFILE, "Too many open files"), False, False),
        (RuntimeError("/srv/none doesn't exist. Can't create workertmp."), True, False),
    ],
    ids=["lasting", "no folder for heartbeats", "may pass", "others serve"],
)
def test_server_that_can_never_start_a_worker_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, exc: Exception, has_served: bool, ends: bool
) -> None:
    def fail() -> None:
        raise exc

    world.fleet.has_served = has_served
    world.server.end(1)
    monkeypatch.setattr(world.server, "spawn_worker", fail)
    monkeypatch.setattr(world.fleet, "_state", lambda pid: State.BOOTING)

    with pytest.raises(HaltServer) if ends else contextlib.nullcontext():
        world.fleet.manage()


def test_server_that_stops_already_is_not_stopped_a_second_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycle.gunicorns, "REAPS_IN_HANDLER", False)
    world.server.could_not_start = {1, 2}
    with pytest.raises(HaltServer):
        world.server.reap_workers()

    world.server.LISTENERS = []  # as gunicorn does first when it stops
    world.server.reap_workers()

    assert list(world.server.WORKERS) == [3]


def test_stopping_server_forgets_all_workers_that_could_not_start(world: World) -> None:
    """gunicorn until 26 has them on its list of those that it waits for."""
    world.server.could_not_start = {1, 2}
    world.server.keeps_those_that_could_not_start = True
    world.server.LISTENERS = []

    world.server.reap_workers()

    assert list(world.server.WORKERS) == [3]


def test_server_that_is_to_end_ends_in_its_own_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn 23 finds it out in its handler of SIGCHLD, which is a greenlet: what is raised there gets lost."""
    monkeypatch.setattr(recycle.gunicorns, "REAPS_IN_HANDLER", True)
    world.server.could_not_start = {1, 2}
    world.server.keeps_those_that_could_not_start = True

    world.server.reap_workers()

    assert list(world.server.WORKERS) == [3]
    with pytest.raises(HaltServer, match="App failed to load"):
        world.fleet.manage()
    assert list(world.server.WORKERS) == [3]  # none is started any more


def test_workers_are_not_reaped_in_the_middle_of_a_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn 23 reaps in its handler of SIGCHLD, which may interrupt anything."""
    spawn = world.server.spawn_worker
    in_turn: list[list[int]] = []

    def spawn_interrupted() -> None:
        world.server.could_not_start = {2}
        world.server.reap_workers()
        in_turn.append(list(world.server.WORKERS))
        spawn()

    monkeypatch.setattr(world.server, "spawn_worker", spawn_interrupted)
    world.server.end(1)
    with pytest.raises(HaltServer):
        world.fleet.manage()

    assert in_turn == [[2, 3]]
    assert list(world.server.WORKERS) == [3, 4]
