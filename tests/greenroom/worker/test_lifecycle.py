"""When a worker asks for a replacement, how it fails to start, and what a drain does to whom."""

import gc
import logging
import resource
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter

from greenroom.insight import lastwords
from greenroom.worker import lifecycle
from greenroom.worker.balance import Scoreboard, State
from greenroom.worker.drain import LINGER_SECONDS, LONGEST_ACCEPT_SECONDS, Drain
from greenroom.worker.lifecycle import EXIT_BOOT_FAILED, GreenWorker
from greenroom.worker.process import OTHER_FILES, allow_open_files, share_memory, tune_gc

from ..conftest import ManualClock


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Scoreboard:
    made = Scoreboard(lines=8)
    monkeypatch.setattr(GreenWorker, "board", made)
    return made


class Owner:
    """Something that a line can belong to."""


@pytest.fixture
def worker(board: Scoreboard) -> GreenWorker:
    """A worker as after the fork, without sockets and without gunicorn's constructor."""
    made: Any = GreenWorker.__new__(GreenWorker)
    made.alive, made.booted, made.nr, made.pid = True, False, 0, 4711
    made.request_limit = 3
    made.log = logging.getLogger("test")
    made.woken = SimpleNamespace(set=lambda: None)
    made.line = board.take(made)
    made.line.state = State.SERVING
    return made  # type: ignore[no-any-return]


def test_at_its_limit_a_worker_asks_for_a_replacement_and_serves_on(worker: GreenWorker, board: Scoreboard) -> None:
    board.has_fleet = True

    states = []
    for _ in range(4):
        worker.request_started()
        states.append(worker.line.state)

    assert states == [State.SERVING, State.SERVING, State.RETIRING, State.RETIRING]
    assert worker.alive


def test_where_nobody_brings_a_replacement_the_worker_stops_as_gunicorns_do(worker: GreenWorker) -> None:
    for _ in range(3):
        worker.request_started()

    assert not worker.alive


@pytest.mark.parametrize("state", [State.SERVING, State.DRAINING])
def test_a_worker_over_its_memory_limit_asks_for_a_replacement_once(
    worker: GreenWorker, board: Scoreboard, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(lastwords, "say", lambda _, text: said.append(text))
    monkeypatch.setattr(lastwords, "memory", lambda *_: "all of it in one list")
    board.has_fleet = True
    worker.line.state = state

    worker._over_memory_limit(501_000_000)
    worker._over_memory_limit(502_000_000)

    assert worker.line.state == (State.RETIRING if state is State.SERVING else state)
    assert len(said) == (state is State.SERVING)


def fail(*_: object) -> None:
    raise ImportError("broken")


def test_a_worker_that_can_not_start_leaves_the_server_alone_while_others_serve(
    worker: GreenWorker, board: Scoreboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle.GeventWorker, "init_process", fail)
    sibling = Owner()
    board.take(sibling).state = State.SERVING

    with pytest.raises(SystemExit) as caught:
        worker.init_process()

    assert caught.value.code == EXIT_BOOT_FAILED
    assert EXIT_BOOT_FAILED not in (3, 4), "at these gunicorn's arbiter ends the server"


def test_a_worker_that_can_not_start_and_is_the_only_one_ends_as_gunicorns_do(
    worker: GreenWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle.GeventWorker, "init_process", fail)

    with pytest.raises(SystemExit) as caught:
        worker.init_process()

    assert caught.value.code == Arbiter.APP_LOAD_ERROR


@pytest.fixture
def _gc_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.usefixtures("_gc_as_before")
def test_what_was_loaded_is_not_collected_again() -> None:
    threshold = gc.get_threshold()
    try:
        tune_gc()

        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() == (10_000, 20, 50)
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)


@pytest.mark.usefixtures("_gc_as_before")
def test_arbiter_keeps_what_was_loaded_from_collections_with_its_first_worker_only() -> None:
    """Objects made later may become garbage."""
    gc.unfreeze()

    share_memory()
    at_first = gc.get_freeze_count()
    later = [[] for _ in range(1000)]
    share_memory()

    assert at_first > 10_000
    assert gc.get_freeze_count() <= at_first
    assert gc.is_tracked(later[0])


class FakeListener:
    """A listening socket at which `waiting` connections wait."""

    turn: Any = "somebody's"

    def __init__(self, waiting: int = 0) -> None:
        self.waiting = waiting
        self.accepted = 0
        self.is_closed = False

    def accept(self) -> int:
        taken, self.waiting = min(self.waiting, 1), max(0, self.waiting - 1)
        self.accepted += taken
        return taken

    def close(self) -> None:
        self.is_closed = True


class FakeConnection:
    def __init__(self, serving: Any) -> None:
        self.serving = serving

    def begin_to_drain(self) -> None: ...

    def close_if_idle(self) -> None:
        del self.serving.timeouts.idle[self]
        self.serving.connections.discard(self)


class World:
    """A worker that drains, without a loop: each `turn` is called by the test."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.someone_else_serves = False
        timer = SimpleNamespace(start=lambda _: None, stop=lambda: None, close=lambda: None)
        timeouts = SimpleNamespace(idle={}, lingering={}, greeting={}, taking={}, end_lingering=lambda until: None)
        loop = SimpleNamespace(timer=lambda *_, **__: timer)
        self.serving: Any = SimpleNamespace(
            connections=set(), in_flight={}, timeouts=timeouts, loop=loop, tell_takers=lambda: None
        )

    def connection(self, *, idle_for_seconds: float) -> FakeConnection:
        made = FakeConnection(self.serving)
        self.serving.connections.add(made)
        self.serving.timeouts.idle[made] = self.clock.now() - idle_for_seconds
        return made

    def drain(self, *listeners: FakeListener, window_seconds: float = 0.0) -> Drain:
        held: Any = list(listeners)
        made = Drain(self.serving, held, lambda: self.someone_else_serves, window_seconds, self.clock.now)
        made.start()
        return made


@pytest.fixture
def world(clock: ManualClock) -> World:
    return World(clock)


def test_what_waits_in_the_kernel_is_accepted_before_the_door_closes(world: World) -> None:
    listener = FakeListener(waiting=3)
    drain = world.drain(listener)

    for _ in range(4):
        drain.turn()

    assert (listener.accepted, listener.is_closed) == (3, True)
    assert drain.is_over


def test_while_siblings_serve_the_waiting_are_left_to_them(world: World) -> None:
    world.someone_else_serves = True
    listener = FakeListener(waiting=3)

    world.drain(listener).turn()

    assert (listener.accepted, listener.is_closed) == (0, True)


def test_connections_that_never_stop_coming_do_not_hold_up_a_drain(world: World, clock: ManualClock) -> None:
    listener = FakeListener(waiting=1_000_000)
    drain = world.drain(listener)

    while not listener.is_closed:
        drain.turn()
        clock.advance(0.1)

    assert listener.accepted <= 1 + LONGEST_ACCEPT_SECONDS / 0.1


def test_a_client_that_was_just_here_gets_a_moment_one_long_idle_does_not(world: World, clock: ManualClock) -> None:
    long_idle = world.connection(idle_for_seconds=LINGER_SECONDS)
    just_here = world.connection(idle_for_seconds=0.0)
    drain = world.drain()

    drain.turn()
    at_once = set(world.serving.connections)
    clock.advance(LINGER_SECONDS)
    drain.turn()

    assert at_once == {just_here}
    assert long_idle not in at_once
    assert drain.is_over


def test_in_the_window_nothing_is_closed(world: World, clock: ManualClock) -> None:
    world.connection(idle_for_seconds=100.0)
    listener = FakeListener()
    drain = world.drain(listener, window_seconds=5.0)

    clock.advance(4.9)
    drain.turn()
    within = (listener.is_closed, len(world.serving.connections))
    clock.advance(0.2)
    drain.turn()

    assert within == (False, 1)
    assert (listener.is_closed, len(world.serving.connections)) == (True, 0)


def test_requests_that_run_are_told_to_close_and_nobody_stands_back_any_more(world: World) -> None:
    told = []
    world.serving.in_flight["connection"] = SimpleNamespace(force_close=lambda: told.append(True))
    listener = FakeListener()

    world.drain(listener)

    assert told == [True]
    assert listener.turn is None


def test_clients_that_have_their_answer_and_still_send_hold_up_a_drain_only_for_a_moment(
    world: World, clock: ManualClock
) -> None:
    timeouts = world.serving.timeouts
    timeouts.lingering["connection"] = clock.now()
    timeouts.end_lingering = lambda until: timeouts.lingering.clear()
    drain = world.drain()

    drain.turn()
    before = drain.is_over
    clock.advance(LINGER_SECONDS + 0.01)
    drain.turn()

    assert not before
    assert drain.is_over


def test_client_that_still_reads_its_last_answer_is_waited_for(world: World, clock: ManualClock) -> None:
    timeouts = world.serving.timeouts
    timeouts.lingering["connection"] = clock.now()
    timeouts.end_lingering = lambda until: timeouts.taking.update(connection=timeouts.lingering.pop("connection"))
    drain = world.drain()
    clock.advance(LINGER_SECONDS + 0.01)
    drain.turn()

    before = drain.is_over
    clock.advance(LINGER_SECONDS + 0.01)
    drain.turn()
    still = drain.is_over
    timeouts.taking.clear()

    assert (before, still, drain.is_over) == (False, False, True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1024, resource.RLIM_INFINITY), 10_000 + OTHER_FILES),
        ((1024, 4096), 4096),
        ((60_000, 60_000), 60_000),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), resource.RLIM_INFINITY),
    ],
)
def test_as_many_files_may_be_open_as_connections_and_some(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: int
) -> None:
    limits = {resource.RLIMIT_NOFILE: before}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)

    allow_open_files(10_000)

    assert limits[resource.RLIMIT_NOFILE] == (after, before[1])


@pytest.mark.parametrize(("limit", "is_said"), [(256, True), (20_000, False), (resource.RLIM_INFINITY, False)])
def test_too_few_descriptors_for_the_connections_are_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, limit: int, is_said: bool
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))

    said = allow_open_files(10_000)

    assert bool(said) == is_said
    assert not is_said or ("256 files" in said and "GREENROOM_WORKER_CONNECTIONS" in said)
