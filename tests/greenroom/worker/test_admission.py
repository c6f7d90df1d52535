"""Admission on simulated time: an event loop, requests that compute and wait, clients who don't wait for each other."""

import heapq
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gevent
import gevent.event
import pytest
from gevent.threadpool import ThreadPool

from greenroom.worker.admission import (
    BURST,
    DEPTH_SECONDS,
    QUEUE_TICK_SECONDS,
    AdaptiveGate,
    Admission,
    StaticGate,
)
from greenroom.worker.load import RequestGreenlet, Turns, run_metered

from ..conftest import ManualClock

HEAD_SECONDS = 60e-6  # to accept a connection and read its request
SHED_SECONDS = 20e-6
GIVE_UP_SECONDS = 1.0
TIMEOUT_SECONDS = 0.1

Steps = list[tuple[str, float]]


@dataclass(eq=False)
class Request:
    """What it does, in order: ("compute" or "wait", seconds)."""

    due: float
    steps: Steps
    path: str = "/work"
    dead: bool = False
    promised_seconds: float = 0.0
    spent_seconds: float = 0.0


@dataclass
class Outcome:
    due: float
    seconds: float
    is_shed: bool

    @property
    def is_good(self) -> bool:
        return not self.is_shed and self.seconds < GIVE_UP_SECONDS


@dataclass
class Loop:
    """One worker: what is ready runs in its order, then those who waited in line. `core_ratio`: what it gets of one."""

    admission: Admission
    clock: ManualClock
    core_ratio: float = 1.0
    outcomes: list[Outcome] = field(default_factory=list)
    longest_turn: float = 0.0
    events: list[tuple[float, int, Request]] = field(default_factory=list)
    pushed: int = 0
    running: set[Request] = field(default_factory=set)
    most_running: int = 0
    on_finished: Callable[[Request], None] = lambda request: None

    def push(self, at: float, request: Request) -> None:
        self.pushed += 1
        heapq.heappush(self.events, (at, self.pushed, request))

    def spend(self, seconds: float) -> None:
        self.clock.advance(seconds / self.core_ratio)

    def run(self, until: float) -> "Loop":
        ended, took = self.clock.now(), 0.0
        gate, clock = self.admission.gate, self.clock
        while (self.events or self.admission.queue) and clock.now() < until:
            following = self.events[0][0] if self.events else until
            if self.admission.queue:
                following = min(following, clock.now() + QUEUE_TICK_SECONDS)
            clock.seconds = max(clock.seconds, following)
            began = clock.now()
            gate.turn(began - ended, took)
            for request in self.ready(began):
                if request in self.running:
                    self.step(request, gate.ran)
                else:
                    self.arrive(request)
            self.admission.release(max(took, clock.now() - began))
            ended, took = clock.now(), clock.now() - began
            self.longest_turn = max(self.longest_turn, took)
        return self

    def ready(self, now: float) -> list[Request]:
        found = []
        while self.events and self.events[0][0] <= now:
            found.append(heapq.heappop(self.events)[2])
        return found

    def arrive(self, request: Request) -> None:
        self.spend(HEAD_SECONDS)
        if self.admission.gate.load < self.admission.gate.limit and not self.admission.queue:
            self.start(None, request)
        else:
            self.admission.wait_or_shed(None, request)

    def start(self, _connection: Any, request: Request) -> None:
        self.running.add(request)
        self.most_running = max(self.most_running, len(self.running))
        self.admission.gate.admit()
        self.step(request, self.admission.gate.began)

    def step(self, request: Request, account: Callable[[Any, float], None]) -> None:
        began = self.clock.now()
        while request.steps and request.steps[0][0] == "compute":
            self.spend(request.steps.pop(0)[1])
        if request.steps:
            self.push(self.clock.now() + request.steps.pop(0)[1], request)
        else:
            request.dead = True
            self.running.discard(request)
            self.end(request, is_shed=False)
        account(request, self.clock.now() - began)

    def shed(self, _connection: Any, request: Request) -> None:
        self.spend(SHED_SECONDS)
        self.end(request, is_shed=True)

    def end(self, request: Request, *, is_shed: bool) -> None:
        self.outcomes.append(Outcome(request.due, self.clock.now() - request.due, is_shed))
        self.on_finished(request)


class World:
    """Makes loops whose time begins at 0 and ends when the test does."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.clock.seconds = 0.0

    def loop(self, gate: Any = None, **settings: Any) -> Loop:
        settings = {"queue_limit_requests": 1000, "queue_timeout_seconds": TIMEOUT_SECONDS, **settings}
        loop: list[Loop] = []
        admission = Admission(
            gate or AdaptiveGate(),
            lambda connection, request: loop[0].start(connection, request),
            lambda connection, request: loop[0].shed(connection, request),
            now=self.clock.now,
            **settings,
        )
        loop.append(Loop(admission, self.clock))
        return loop[0]


@pytest.fixture
def world(clock: ManualClock) -> World:
    return World(clock)


def computes_first(chance: random.Random) -> Steps:
    return [("compute", 0.01), ("wait", 0.05)]


def waits_first(chance: random.Random) -> Steps:
    return [("wait", 0.05), ("compute", 0.01)]


def in_parts(chance: random.Random) -> Steps:
    return [("compute", 0.005), ("wait", 0.025), ("compute", 0.005), ("wait", 0.025)]


def waits_long_first(chance: random.Random) -> Steps:
    return [("wait", 0.5), ("compute", 0.01)]


CAPACITY = 1 / (0.01 + HEAD_SECONDS)
SHAPES = (computes_first, waits_first, in_parts, waits_long_first)


def poisson(phases: Sequence[tuple[float, float]], steps: Callable[[random.Random], Steps]) -> Iterator[Request]:
    """Phases are (rate, seconds)."""
    chance = random.Random(5)
    begin = 0.0
    for rate, seconds in phases:
        due = begin + chance.expovariate(rate)
        while due < begin + seconds:
            yield Request(due, steps(chance))
            due += chance.expovariate(rate)
        begin += seconds


def offer(loop: Loop, requests: Iterator[Request] | Sequence[Request]) -> None:
    for request in requests:
        loop.push(request.due, request)


def percentile_99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * len(values))]


@pytest.mark.parametrize("level", [1.1, 1.5, 3.0, 10.0])
@pytest.mark.parametrize("steps", SHAPES, ids=lambda shape: shape.__name__)
def test_overload_leaves_good_answers_quick_and_near_the_peak(
    steps: Callable[[random.Random], Steps], level: float, world: World
) -> None:
    loop = world.loop()
    offer(loop, poisson([(0.5 * CAPACITY, 3), (level * CAPACITY, 10), (0.5 * CAPACITY, 4)], steps))

    loop.run(until=20)

    waits = 0.5 if steps is waits_long_first else 0.05
    under_load = [one for one in loop.outcomes if 3 <= one.due < 13]
    good = [one.seconds for one in under_load if one.is_good]
    assert len(good) / 10 >= 0.85 * CAPACITY
    assert percentile_99(good) < 0.25 + waits
    assert all(one.seconds < 0.5 for one in under_load if one.is_shed)
    after = [one for one in loop.outcomes if 14 <= one.due < 17]  # a second after the drop
    assert all(one.is_good and one.seconds < 0.25 + waits for one in after)


@pytest.mark.parametrize("steps", SHAPES, ids=lambda shape: shape.__name__)
def test_nobody_is_turned_away_below_the_capacity(steps: Callable[[random.Random], Steps], world: World) -> None:
    loop = world.loop()
    offer(loop, poisson([(0.6 * CAPACITY, 20)], steps))

    loop.run(until=30)

    assert sum(one.is_shed for one in loop.outcomes) <= 0.002 * len(loop.outcomes)


def test_a_core_shared_with_a_neighbour_still_answers_quickly(world: World) -> None:
    loop = world.loop()
    loop.core_ratio = 0.4
    offer(loop, poisson([(0.9 * CAPACITY, 15)], computes_first))

    loop.run(until=20)

    good = [one.seconds for one in loop.outcomes if one.is_good and one.due > 1]  # by then it knows what they take
    assert len(good) / 14 >= 0.85 * 0.4 * CAPACITY
    assert percentile_99(good) < 0.4


def test_a_thousand_clients_of_a_slow_upstream_are_all_admitted(world: World) -> None:
    chance = random.Random(5)

    def ask_again(_request: Request) -> None:
        due = loop.clock.now() + chance.expovariate(1 / 0.25)
        loop.push(due, Request(due, [("compute", 0.00015), ("wait", 0.1), ("compute", 0.00005)]))

    loop = world.loop()
    loop.on_finished = ask_again
    for _ in range(1000):
        ask_again(Request(0.0, []))

    loop.run(until=5)

    assert loop.admission.shed_requests == 0
    assert len(loop.outcomes) > 2500 * 4.5
    assert loop.most_running > 250


def test_hundreds_at_the_same_moment_are_all_admitted(world: World) -> None:
    loop = world.loop()
    offer(loop, [Request(0.0, [("compute", 0.00015), ("wait", 0.1), ("compute", 0.00005)]) for _ in range(600)])

    loop.run(until=5)

    assert all(one.is_good for one in loop.outcomes)
    assert loop.most_running > 300


def test_a_burst_on_an_idle_server_is_served(world: World) -> None:
    loop = world.loop()
    offer(loop, poisson([(5, 20)], computes_first))
    loop.run(until=20)
    loop.outcomes.clear()
    offer(loop, [Request(20.5, [("compute", 0.01), ("wait", 0.05)]) for _ in range(20)])

    loop.run(until=25)

    assert all(one.is_good for one in loop.outcomes)
    assert max(one.seconds for one in loop.outcomes) < 0.35
    assert loop.longest_turn < 3 * DEPTH_SECONDS


def test_a_stall_sheds_nobody_who_came_before_or_in_it(world: World) -> None:
    loop = world.loop()
    offer(loop, poisson([(200, 3)], lambda chance: [("compute", 0.0005), ("wait", 0.02)]))
    offer(loop, [Request(1.0, [("compute", 0.6)])])  # somebody blocks the loop

    loop.run(until=5)

    assert loop.admission.shed_requests == 0


def test_requests_that_compute_for_long_run_one_after_the_other(world: World) -> None:
    loop = world.loop()
    offer(loop, [Request(at, [("compute", 0.3)]) for at in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 12.01)])

    loop.run(until=20)

    assert [one.is_good for one in loop.outcomes] == [True] * 8


def test_one_slow_first_request_does_not_close_the_door(world: World) -> None:
    loop = world.loop()
    offer(loop, [Request(0.0, [("compute", 10.0)])])
    offer(loop, [Request(11.0, [("compute", 0.0005), ("wait", 0.05)]) for _ in range(300)])

    loop.run(until=20)

    assert loop.admission.shed_requests == 0


def test_health_checks_and_named_paths_are_never_turned_away(world: World) -> None:
    loop = world.loop(priority_paths=("/pay/", "/admin"))
    offer(loop, poisson([(10 * CAPACITY, 3)], computes_first))
    ahead = ["/healthz", "/readyz", "/pay", "/pay/7", "/admin/users"]
    others = ["/payments", "/healthzz"]
    seen: dict[str, list[bool]] = {path: [] for path in ahead + others}
    start, shed = loop.admission.start, loop.admission.shed

    def note_start(connection: Any, request: Request) -> None:
        seen.get(request.path, []).append(True)
        start(connection, request)

    def note_shed(connection: Any, request: Request) -> None:
        seen.get(request.path, []).append(False)
        shed(connection, request)

    loop.admission.start, loop.admission.shed = note_start, note_shed
    for number in range(40):
        at = 1 + number * 0.05
        offer(loop, [Request(at, [("compute", 0.0001)], path=path) for path in seen])

    loop.run(until=4)

    assert {path: all(seen[path]) for path in ahead} == dict.fromkeys(ahead, True)
    assert not any(all(seen[path]) for path in others)


def test_a_static_limit_counts_requests_in_flight(world: World) -> None:
    loop = world.loop(gate=StaticGate(8))
    offer(loop, poisson([(3 * CAPACITY, 5)], computes_first))

    loop.run(until=10)

    assert loop.most_running == 8
    assert loop.admission.gate.load == 0
    assert len([one for one in loop.outcomes if one.is_good]) / 5 >= 0.85 * CAPACITY


def test_the_line_is_no_longer_than_its_limit(world: World) -> None:
    loop = world.loop(gate=StaticGate(1), queue_limit_requests=3)
    offer(loop, [Request(0.0, [("wait", 0.01)]) for _ in range(10)])

    loop.run(until=1)

    assert loop.admission.shed_full_requests == 6
    assert loop.admission.shed_late_requests == 0
    assert sum(one.is_good for one in loop.outcomes) == 4


def test_who_waited_too_long_is_turned_away_at_the_age_limit(world: World) -> None:
    loop = world.loop(gate=StaticGate(1))
    offer(loop, [Request(0.0, [("wait", 5.0)]), Request(0.0, [("wait", 0.01)])])

    loop.run(until=6)

    shed = [one for one in loop.outcomes if one.is_shed]
    assert loop.admission.shed_late_requests == 1
    assert shed[0].seconds == pytest.approx(BURST * TIMEOUT_SECONDS, abs=0.01)


def test_a_queue_that_stays_lets_nobody_wait_as_long_as_a_new_one(world: World) -> None:
    loop = world.loop(gate=StaticGate(1))
    offer(loop, [Request(0.0, [("wait", 5.0)])])
    offer(loop, [Request(number * 0.02, [("wait", 0.01)]) for number in range(200)])

    loop.run(until=6)

    late = [one.seconds for one in loop.outcomes if one.is_shed and one.due > 1.0]
    assert late == pytest.approx([TIMEOUT_SECONDS] * len(late), abs=0.01)


def test_requests_turned_away_are_one_line_of_the_log_per_interval(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    logger = logging.Logger("one test's own")
    monkeypatch.setattr(logger, "warning", lambda message, *values: said.append(message % values))
    monkeypatch.setattr("greenroom.worker.admission.logger", logger)
    loop = world.loop(gate=StaticGate(1), queue_limit_requests=1)
    lines = []
    for second in range(12):
        offer(loop, [Request(float(second), [("wait", 0.01)]) for _ in range(5)])
        loop.run(until=second + 1)
        loop.clock.seconds = second + 1
        loop.admission.report()
        lines.append(len(said))

    assert lines == [1] * 10 + [2] * 2
    assert said[0].startswith("overload: 3 requests turned away with 503, 3 since the start")
    assert said[1].startswith("overload: 30 requests turned away with 503, 33 since the start")


def test_finished_requests_leave_nothing_in_the_account(world: World) -> None:
    loop = world.loop()
    offer(loop, poisson([(3 * CAPACITY, 3)], in_parts))
    loop.run(until=10)

    loop.admission.gate.turn(0.0, 0.0)

    assert loop.admission.gate.load == pytest.approx(0.0, abs=0.05)
    assert loop.admission.gate.cost == pytest.approx(0.01, rel=0.1)


class Ledger:
    """A meter that only writes down."""

    def __init__(self) -> None:
        self.slices: list[float] = []

    def admit(self) -> None:
        assert not self.slices

    def began(self, request: RequestGreenlet, seconds: float) -> None:
        self.slices.append(seconds)

    ran = began


WAITS: dict[str, Callable[[], Any]] = {
    "sleep": lambda: gevent.sleep(0.001),
    "yield": lambda: gevent.sleep(0),
    "event": lambda: gevent.event.Event().wait(0.001),
    "spawned": lambda: gevent.spawn(lambda: None).join(),
    "pool of threads": lambda: ThreadPool(1).apply(lambda: None),
    "timeout": lambda: gevent.with_timeout(0.001, gevent.event.Event().wait, timeout_value=None),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_each_slice_is_measured_however_the_request_is_resumed(wait: Callable[[], Any]) -> None:
    """Fails when gevent resumes greenlets without asking their `switch` and `throw`."""
    ledger, done = Ledger(), gevent.event.Event()

    def work() -> None:
        wait()
        spin(0.01)
        done.set()

    hub = gevent.get_hub()
    hub.loop.run_callback(run_metered, RequestGreenlet(work, hub), ledger)  # from the hub, as connections do
    assert done.wait(10)
    gevent.sleep(0)

    assert len(ledger.slices) >= 2
    assert ledger.slices[0] < 0.01 <= ledger.slices[-1]


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_turns_tell_idling_from_work() -> None:
    idled: list[float] = []
    endings: list[int] = []
    turns = Turns(gevent.get_hub().loop, idled.append, lambda: endings.append(1))
    turns.start()

    gevent.sleep(0.05)
    spin(0.03)
    gevent.sleep(0.01)
    turns.stop()

    assert len(endings) >= 1
    assert turns.count >= 1
    assert sum(idled) >= 0.04
    assert turns.idle_seconds >= 0.04
    assert turns.busy_seconds >= 0.03


def closed(loop: Loop, clients: int, steps: Callable[[random.Random], Steps], think_seconds: float) -> None:
    """So many clients, each of whom asks again a moment after its answer."""
    chance = random.Random(5)

    def ask_again(_request: Request) -> None:
        due = loop.clock.now() + chance.uniform(0, 2 * think_seconds)
        loop.push(due, Request(due, steps(chance)))

    loop.on_finished = ask_again
    for _ in range(clients):
        ask_again(Request(0.0, []))


def sign_in_or_look(chance: random.Random) -> Steps:
    return [("compute", 0.07 if chance.random() < 0.1 else 0.003)]


@pytest.mark.parametrize(
    ("clients", "steps", "think_seconds", "core_ratio"),
    [
        (50, lambda chance: [("compute", 0.0003)], 0.0, 1.0),
        (50, lambda chance: [("compute", 0.0003)], 0.0, 0.2),
        (12, lambda chance: [("compute", 0.06)], 1.0, 1.0),
        (12, lambda chance: [("compute", 0.06)], 1.0, 0.5),
        (50, sign_in_or_look, 1.0, 1.0),
        (40, sign_in_or_look, 1.0, 0.7),
        (8, lambda chance: [("compute", 0.01), ("wait", 0.02), ("compute", 0.04)], 0.0, 1.0),
        (8, lambda chance: [("compute", 0.01), ("wait", 0.02), ("compute", 0.04)], 0.0, 0.3),
        (6, lambda chance: [("compute", chance.choice([0.001, 0.05, 0.1]))], 0.0, 1.0),
    ],
    ids=lambda value: "steps" if callable(value) else None,
)
def test_some_dozen_clients_who_wait_for_their_answers_get_them(
    clients: int, steps: Callable[[random.Random], Steps], think_seconds: float, core_ratio: float, world: World
) -> None:
    loop = world.loop()
    loop.core_ratio = core_ratio
    closed(loop, clients, steps, think_seconds)

    loop.run(until=20)

    assert loop.admission.shed_requests == 0
    assert len(loop.outcomes) > clients


def test_a_core_that_is_taken_away_again_and_again_sheds_nobody(world: World) -> None:
    chance = random.Random(7)
    loop = world.loop()
    closed(loop, 50, lambda _chance: [("compute", 0.0003 if chance.random() > 0.003 else 0.06)], 0.0)

    loop.run(until=20)

    assert loop.admission.shed_requests == 0


def test_a_worker_that_has_just_started_lets_a_crowd_wait_for_its_imports(world: World) -> None:
    loop = world.loop()
    offer(loop, [Request(0.01 * number, [("compute", 0.15 if number < 4 else 0.001)]) for number in range(4)])
    offer(loop, [Request(0.5, [("compute", 0.001)]) for _ in range(100)])

    loop.run(until=10)

    assert loop.admission.shed_requests == 0


def test_the_first_requests_of_a_worker_close_the_door_to_nobody(world: World) -> None:
    """64 clients who ask again and again; what runs first imports and connects."""
    cold = iter([0.15, 0.08, 0.05, 0.05, 0.03])
    loop = world.loop()
    closed(loop, 64, lambda chance: [("compute", next(cold, 0.0004)), ("wait", 0.1), ("compute", 0.0003)], 0.0)

    loop.run(until=5)

    assert loop.admission.shed_requests == 0


def test_eight_sign_ins_at_once_are_all_answered(world: World) -> None:
    loop = world.loop()
    offer(loop, poisson([(50, 5)], lambda chance: [("compute", 0.002)]))
    offer(loop, [Request(3.0, [("compute", 0.06)]) for _ in range(8)])

    loop.run(until=10)

    assert loop.admission.shed_requests == 0
