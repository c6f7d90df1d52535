"""Workers that can not be started, on an arbiter without processes: what is tried again, and when the server ends."""

import contextlib
import errno

import pytest
from gunicorn.errors import HaltServer

from greenroom.worker import recycle
from greenroom.worker.balance import Scoreboard, State
from greenroom.worker.recycle import LONGEST_BACKOFF_SECONDS, Fleet

from .fleet import FakeArbiter, World

pytestmark = pytest.mark.usefixtures("no_stagger")


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
