"""The scoreboard is one writer's lines; the rule of turns never leaves a connection to nobody."""

import os

import pytest

from greenroom.worker.balance import (
    FRESH_SECONDS,
    GENERATION,
    HEARTBEAT_SECONDS,
    LAGGING_SECONDS,
    LONGEST_WAIT_SECONDS,
    STEP_SECONDS,
    Line,
    Scoreboard,
    State,
    Turn,
)

from ..conftest import ManualClock


class Worker:
    """Something that a line can belong to."""


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard(lines=6)


class Fleet:
    """Some workers that serve, each with a line, kept alive by this object."""

    def __init__(self, board: Scoreboard, count: int, clock: ManualClock) -> None:
        self.owners = [Worker() for _ in range(count)]
        self.lines: list[Line] = [board.take(owner) for owner in self.owners]
        for line in self.lines:
            line.state = State.SERVING
            line.beat(clock.now())


def test_a_line_says_what_was_written_and_starts_as_booting(board: Scoreboard) -> None:
    owner = Worker()
    line = board.take(owner)
    born = line.as_dict()

    line.pid, line.connections = 4711, 3

    assert born["state"] == State.BOOTING
    assert [(seen.pid, seen.connections) for seen in board] == [(4711, 3)]


def test_a_child_process_writes_and_its_parent_reads(board: Scoreboard) -> None:
    owner = Worker()
    line = board.take(owner)

    child = os.fork()
    if not child:
        line.requests = 12345
        os._exit(0)
    os.waitpid(child, 0)

    assert line.requests == 12345


def test_the_line_of_a_dead_worker_is_empty_and_given_to_the_next(board: Scoreboard) -> None:
    first, second = Worker(), Worker()
    line = board.take(first)
    board.take(second)
    line.requests = 9

    del first
    board.sweep()
    left = [seen.number for seen in board]
    third = Worker()
    again = board.take(third)

    assert left == [2]
    assert (again.number, again.requests, again.state) == (1, 0, State.BOOTING)


def test_more_workers_than_lines_is_an_error_with_the_number(board: Scoreboard) -> None:
    owners = [Worker() for _ in range(6)]
    for owner in owners[:5]:
        board.take(owner)

    with pytest.raises(RuntimeError, match="all 5 lines"):
        board.take(owners[5])


def test_lag_is_how_late_the_loop_turned_and_it_fades(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 1, clock)
    line = fleet.lines[0]
    clock.advance(HEARTBEAT_SECONDS + 0.4)
    line.beat(clock.now())
    late = line.lag_seconds

    for _ in range(3):
        clock.advance(HEARTBEAT_SECONDS)
        line.beat(clock.now())

    assert late == pytest.approx(0.4)
    assert line.lag_seconds == pytest.approx(0.05)


def test_the_least_loaded_accepts_and_the_others_stand_back(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 3, clock)
    for line, expected in zip(fleet.lines, (5, 3, 4), strict=True):
        line.expected = expected

    turns = [Turn(board, line, clock.now).has_come() for line in fleet.lines]

    assert turns == [False, True, False]


def test_compared_are_the_other_lines_that_are_willing(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 5, clock)
    own, booting, lagging, old, other = fleet.lines
    booting.state, other.state = State.BOOTING, State.RETIRING
    lagging.lag_seconds = LAGGING_SECONDS
    old.heartbeat = clock.now() - FRESH_SECONDS
    other.queued, other.expected, other.accepted = 1.0, 2.0, 3.0

    assert [line.number for line in board.siblings(own) if line.is_willing(clock.now())] == [other.number]
    assert Turn(board, own)._willing(clock.now()) == [(1.0, 2.0, 3.0)]


def test_equally_loaded_workers_all_may_accept(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 3, clock)

    assert all(Turn(board, line, clock.now).has_come() for line in fleet.lines)


def test_a_worker_alone_accepts(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 1, clock)
    fleet.lines[0].expected = 1000
    fleet.lines[0].lag_seconds = 1.0

    assert Turn(board, fleet.lines[0], clock.now).has_come()


@pytest.mark.parametrize("state", [State.BOOTING, State.DRAINING, State.EMPTY])
def test_nobody_waits_for_a_worker_that_does_not_accept(board: Scoreboard, clock: ManualClock, state: State) -> None:
    fleet = Fleet(board, 2, clock)
    fleet.lines[0].expected = 10
    fleet.lines[1].state = state

    assert Turn(board, fleet.lines[0], clock.now).has_come()


def test_nobody_waits_for_a_worker_whose_loop_stands_still(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 2, clock)
    busy, blocked = fleet.lines
    busy.expected = 10
    clock.advance(FRESH_SECONDS)
    busy.beat(clock.now())
    busy.lag_seconds = 0.0

    assert Turn(board, busy, clock.now).has_come()
    assert blocked.expected == 0


def test_a_lagging_worker_stands_back_for_one_that_is_not(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 2, clock)
    lagging, quick = fleet.lines
    lagging.lag_seconds = LAGGING_SECONDS
    quick.expected = 50

    assert not Turn(board, lagging, clock.now).has_come()
    assert Turn(board, quick, clock.now).has_come()


def test_when_all_lag_somebody_accepts(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 3, clock)
    for line in fleet.lines:
        line.lag_seconds = 1.0

    assert all(Turn(board, line, clock.now).has_come() for line in fleet.lines)


def ask_until_it_comes(turn: Turn, clock: ManualClock) -> float:
    began = clock.now()
    while not turn.has_come():
        clock.advance(STEP_SECONDS)
        assert clock.now() - began < 1.0, "the turn never came"
    return clock.now() - began


def test_a_connection_that_nobody_takes_is_taken_after_a_moment(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 2, clock)
    fleet.lines[0].expected = 10

    waited = ask_until_it_comes(Turn(board, fleet.lines[0], clock.now), clock)

    assert waited == pytest.approx(LONGEST_WAIT_SECONDS, abs=2 * STEP_SECONDS)


def test_while_others_accept_the_one_ahead_goes_on_standing_back(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 2, clock)
    ahead, other = fleet.lines
    ahead.expected = 100
    turn = Turn(board, ahead, clock.now)

    turns = []
    for _ in range(50):
        turns.append(turn.has_come())
        clock.advance(STEP_SECONDS)
        other.beat(clock.now())
        other.accepted += 1
        other.expected += 1

    assert turns == [False] * 50


def test_each_connection_is_a_new_wait(board: Scoreboard, clock: ManualClock) -> None:
    fleet = Fleet(board, 2, clock)
    ahead, other = fleet.lines
    ahead.expected = 10
    turn = Turn(board, ahead, clock.now)
    turn.has_come()

    clock.advance(60)
    other.beat(clock.now())
    other.lag_seconds = 0.0

    assert not turn.has_come()


def test_counts_of_workers_that_are_gone_stay_in_the_sums(board: Scoreboard) -> None:
    """Whether it ended orderly or was killed at work, and at every moment in between."""
    seen = []
    for state in (State.EMPTY, State.SERVING, State.DRAINING):
        owner = Worker()
        line = board.take(owner)
        line.state = State.SERVING
        line.requests, line.shed = 10, 2
        seen.append(board.read()[0]["requests"])
        line.state = state
        seen.append(board.read()[0]["requests"])
        del owner
        board.sweep()
        seen.append(board.read()[0]["requests"])

    totals, lines = board.read()

    assert seen == [10, 10, 10, 20, 20, 20, 30, 30, 30]
    assert (totals["shed"], totals["workers_started"], totals["workers_ended"], totals["workers_died"]) == (6, 3, 3, 1)
    assert lines == []


def test_another_program_reads_it_through_its_descriptor(board: Scoreboard) -> None:
    owner = Worker()
    line = board.take(owner)
    line.pid, line.requests, line.state = 4711, 12, State.SERVING

    other = Scoreboard(lines=board.lines, descriptor=os.dup(board.descriptor))

    totals, lines = other.read()
    assert totals["requests"] == 12
    assert [(seen["number"], seen["pid"]) for seen in lines] == [(1, 4711)]


def test_a_reader_is_not_stopped_by_an_arbiter_that_was_killed_in_its_sums(board: Scoreboard) -> None:
    owner = Worker()
    board.take(owner).requests = 5
    board._cells[GENERATION] += 1

    assert board.read()[0]["requests"] == 5
