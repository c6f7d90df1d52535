"""The arbiter's part of replacing workers, on an arbiter without processes; and what of gunicorn it relies on."""

import inspect
import os
import signal

import gunicorn
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from greenroom.worker import recycle
from greenroom.worker.balance import State

from .fleet import World

pytestmark = pytest.mark.usefixtures("no_stagger")


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
