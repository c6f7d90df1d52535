"""Workers share by requests: on simulated time, clients that keep their connections end up where there is room."""

import random

import pytest

from greenroom.worker.balance import HEARTBEAT_SECONDS, Line, Scoreboard, State, Turn
from greenroom.worker.sharing import (
    LONGEST_START_SECONDS,
    SHORTEST_START_SECONDS,
    START_RATIO,
    Sharing,
    Work,
    may_start,
    surplus,
)

from ..conftest import ManualClock


class Owner:
    """Something that a line can belong to."""


class Worker:
    """It serves up to `capacity` requests a second, of clients who each ask `asks` times a second if they can."""

    def __init__(self, fleet: "Fleet", clients: int) -> None:
        self.fleet = fleet
        self.owner = Owner()
        self.line: Line = fleet.board.take(self.owner)
        self.line.state = State.SERVING
        self.line.beat(fleet.clock.now())
        self.sharing = Sharing(fleet.board, self.line, set(), fleet.clock.now)
        self.turn = Turn(fleet.board, self.line, fleet.clock.now)
        self.clients: list[int] = []
        self.is_stalled = False
        self.served = 0
        for _ in range(clients):
            fleet.names += 1
            self.accept(fleet.names)

    def accept(self, client: int) -> None:
        self.clients.append(client)
        self.line.accepted += 1
        self.line.connections = len(self.clients)
        self.sharing.accepted()

    def step(self, seconds: float) -> list[int]:
        """Serve; returns the clients that were given away."""
        fleet, given = self.fleet, []
        wanted = len(self.clients) * fleet.asks * seconds
        count = int(min(wanted, fleet.capacity * seconds) + fleet.chance.random())
        for client in fleet.chance.choices(self.clients, k=count) if self.clients else ():
            self.served += 1
            self.line.requests += 1
            self.sharing.asked.add(client)
            if client in self.clients and self.sharing.gives_away():
                self.clients.remove(client)
                given.append(client)
        queued = 0 if wanted <= fleet.capacity * seconds else max(0, len(self.clients) - 2)
        self.line.connections = len(self.clients)
        self.line.beat(fleet.clock.now())
        self.sharing.beat(queued)
        return given


class Fleet:
    def __init__(self, clock: ManualClock, clients: list[int], *, asks: float, capacity: float) -> None:
        self.board = Scoreboard(lines=20)
        self.clock, self.asks, self.capacity = clock, asks, capacity
        self.chance = random.Random(3)
        self.names = 0
        self.workers = [Worker(self, count) for count in clients]
        self.moved = 0

    def run(self, seconds: float) -> "Fleet":
        for _ in range(round(seconds / HEARTBEAT_SECONDS)):
            self.clock.advance(HEARTBEAT_SECONDS)
            given = []
            for worker in self.workers:
                if not worker.is_stalled:
                    given += worker.step(HEARTBEAT_SECONDS)
            for client in given:
                self.moved += 1
                self.connect(client)
        return self

    def connect(self, client: int) -> None:
        waking = [worker for worker in self.workers if not worker.is_stalled]
        self.chance.shuffle(waking)
        for _ in range(100):
            for worker in waking:
                if worker.turn.has_come():
                    worker.accept(client)
                    return
            self.clock.advance(0.001)
        raise AssertionError("nobody accepted")

    def spread(self, seconds: float) -> float:
        """Busiest by idlest worker, by requests, from now on."""
        for worker in self.workers:
            worker.served = 0
        self.run(seconds)
        served = [worker.served for worker in self.workers]
        return max(served) / max(min(served), 1)


@pytest.mark.parametrize(
    ("clients", "asks", "capacity"),
    [
        ([20, 0], 10.0, 1000.0),
        ([20, 0], 100.0, 100.0),
        ([80, 0, 0, 0, 0, 0, 0, 0], 10.0, 1000.0),
        ([80, 0, 0, 0, 0, 0, 0, 0], 50.0, 100.0),
        ([20, 20, 20, 20, 0], 15.0, 1000.0),
        ([100, 50, 50, 0], 1.0, 1000.0),
        ([160, 40], 100.0, 100.0),
    ],
    ids=str,
)
def test_everybody_has_its_share_within_ten_seconds(
    clients: list[int], asks: float, capacity: float, clock: ManualClock
) -> None:
    fleet = Fleet(clock, clients, asks=asks, capacity=capacity).run(10)

    assert fleet.spread(10) <= 1.3
    assert sum(len(worker.clients) for worker in fleet.workers) == sum(clients)


def test_a_line_beside_a_short_one_is_shared_although_both_have_as_many_requests(clock: ManualClock) -> None:
    """Two workers that compute all the time, for 38 and for 2 clients: some would wait nineteen times as long."""
    fleet = Fleet(clock, [38, 2], asks=100.0, capacity=100.0).run(10)

    counts = sorted(len(worker.clients) for worker in fleet.workers)
    assert counts[1] <= 2 * counts[0]


def test_a_new_worker_gets_its_share_and_the_others_keep_most(clock: ManualClock) -> None:
    fleet = Fleet(clock, [20, 20], asks=10.0, capacity=1000.0).run(5)
    fleet.workers.append(Worker(fleet, 0))
    moved_before = fleet.moved

    fleet.run(10)

    assert fleet.spread(5) <= 1.3
    assert fleet.moved - moved_before < 40


def test_a_worker_whose_loop_stood_still_gets_its_share_again(clock: ManualClock) -> None:
    fleet = Fleet(clock, [30, 30], asks=10.0, capacity=1000.0).run(5)
    stalled = fleet.workers[0]
    stalled.is_stalled = True
    for client in list(stalled.clients):  # they give up, and connect again
        stalled.clients.remove(client)
        fleet.run(0.05)
        fleet.connect(client)
    fleet.run(2)
    stalled.is_stalled = False

    fleet.run(10)

    assert fleet.spread(5) <= 1.3


def test_an_even_fleet_moves_hardly_anybody(clock: ManualClock) -> None:
    fleet = Fleet(clock, [25, 25, 25, 25], asks=10.0, capacity=1000.0).run(60)

    assert fleet.moved <= 20


def test_a_worker_alone_gives_nothing_away(clock: ManualClock) -> None:
    fleet = Fleet(clock, [50], asks=100.0, capacity=100.0).run(20)

    assert fleet.moved == 0


def test_a_single_connection_that_brings_most_is_not_passed_to_and_fro() -> None:
    busy, other = Work(1000.0, 0.0), Work(50.0, 0.0)

    assert surplus(busy, [other], active=1, seconds=1.0) == 0
    assert surplus(other, [busy], active=50, seconds=1.0) == 0


def test_nobody_is_sent_to_a_worker_with_a_line() -> None:
    quick, slow = Work(500.0, 0.0), Work(10.0, 10.0)

    assert surplus(quick, [slow], active=50, seconds=1.0) == 0
    assert surplus(slow, [quick], active=12, seconds=1.0) == 5


def test_what_chance_explains_is_no_reason() -> None:
    assert surplus(Work(12.0, 0.0), [Work(8.0, 0.0)], active=20, seconds=1.0) == 0
    assert surplus(Work(12.0, 0.0), [Work(8.0, 0.0)], active=20, seconds=30.0) == 3
    assert surplus(Work(200.0, 0.0), [Work(100.0, 0.0)], active=20, seconds=1.0) == 5


@pytest.mark.parametrize(
    ("others", "waited", "started", "may"),
    [
        ([(State.BOOTING, 0)], 0.0, 0.5, False),
        ([(State.BOOTING, 0)], SHORTEST_START_SECONDS, 0.5, True),
        ([(State.BOOTING, 0)], SHORTEST_START_SECONDS, 3.0, False),
        ([(State.BOOTING, 0)], START_RATIO * 3.0, 3.0, True),
        ([(State.BOOTING, 0)], LONGEST_START_SECONDS, 60.0, True),
        ([(State.SERVING, 0)], 0.0, 0.5, False),  # the third has not even been forked
        ([(State.SERVING, 0), (State.BOOTING, 0)], 0.0, 0.5, False),
        ([(State.SERVING, 0), (State.SERVING, 0)], 0.0, 0.5, True),
        ([(State.SERVING, 5), (State.BOOTING, 0)], 0.0, 0.5, True),
    ],
)
def test_a_start_waits_for_the_others_but_not_for_ever(
    others: list[tuple[State, int]], waited: float, started: float, may: bool
) -> None:
    board = Scoreboard(lines=6)
    owners = [Owner() for _ in range(1 + len(others))]
    lines = [board.take(owner) for owner in owners]
    lines[0].state = State.SERVING
    for line, (state, accepted) in zip(lines[1:], others, strict=True):
        line.state, line.accepted = state, accepted

    assert may_start(board, lines[0], 3, waited, started) == may
