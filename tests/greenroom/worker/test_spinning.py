"""A loop that turns without doing anything is counted and named; one that works, or waits, is not."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from greenroom import timers
from greenroom.timers import Timer
from greenroom.worker.load import SHORT_SECONDS, Turns
from greenroom.worker.spinning import EMPTY_SHARE, LOOKS, REPORT_SECONDS, SpinWatch

from ..conftest import ManualClock

LOOK_SECONDS = 0.25
WRITABLE = 2  # libev's EV_WRITE


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, message: str, *values: Any) -> None:
        self.lines.append(message % values)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    said = Said()
    monkeypatch.setattr("greenroom.worker.spinning.logger", said)
    return said


class Stage:
    """A watch over turns that a test counts."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.empty, self.empty_seconds = 0, 0.0
        self.watch = SpinWatch(self, clock.now)  # type: ignore[arg-type]  # all that it asks of turns

    def look(self, empty_share: float, times: int = 1, calls: str = "") -> bool:
        for _ in range(times):
            self.clock.advance(LOOK_SECONDS)
            self.empty += round(10_000 * empty_share)
            self.empty_seconds += empty_share * LOOK_SECONDS
            if calls:
                timers.called[calls] += round(9_000 * empty_share)
            self.watch.look()
        return self.watch.is_spinning


@pytest.fixture
def stage(clock: ManualClock) -> Stage:
    return Stage(clock)


def test_empty_turns_that_take_a_share_of_the_core_for_a_second_are_a_spin(stage: Stage, said: Said) -> None:
    assert not stage.look(EMPTY_SHARE + 0.1, LOOKS - 1)
    assert stage.look(EMPTY_SHARE + 0.1)
    assert len(said.lines) == 1
    assert "nothing of the server's own makes it turn" in said.lines[0]
    assert not stage.look(0.0)


def test_few_empty_turns_are_none(stage: Stage, said: Said) -> None:
    assert not stage.look(EMPTY_SHARE / 2, 20)
    assert said.lines == []


def test_what_of_ours_spins_is_named(stage: Stage, said: Said) -> None:
    stage.look(0.5, LOOKS, calls="of a test, spinning")

    assert said.lines == [
        "the loop turned 20000 times without doing anything; called most often: of a test, spinning, 18000 times"
    ]


def test_the_log_line_comes_once_in_ten_seconds(stage: Stage, said: Said) -> None:
    stage.look(0.5, LOOKS + round(REPORT_SECONDS / LOOK_SECONDS) - 1)
    assert len(said.lines) == 1
    stage.look(0.5)
    assert len(said.lines) == 2


class Loop:
    """The hub's loop, watched; `work` is what it has done."""

    def __init__(self) -> None:
        self.loop = gevent.get_hub().loop
        self.work = 0.0
        self.turns = Turns(self.loop, lambda idle: None, lambda: None, lambda: self.work)
        self.turns.start()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.turns.stop()


@pytest.fixture
def again(loop: Loop) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Have something called in each turn of the loop."""
    ready, other = socket.socketpair()
    watcher = loop.loop.io(ready.fileno(), WRITABLE)
    yield watcher.start
    watcher.stop()
    watcher.close()
    ready.close()
    other.close()


def turn_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        gevent.sleep(0.01)
    pytest.fail("waited in vain")


def test_an_event_that_nobody_takes_makes_empty_turns(
    loop: Loop, again: Callable[[Callable[[], object]], None]
) -> None:
    again(lambda: None)

    turn_until(lambda: loop.turns.empty > 100)

    assert 0 < loop.turns.empty_seconds < loop.turns.empty * 2 * SHORT_SECONDS


def test_turns_in_which_something_was_done_are_not_empty(
    loop: Loop, again: Callable[[Callable[[], object]], None]
) -> None:
    def serve() -> None:
        loop.work += 1

    again(serve)

    turn_until(lambda: loop.work > 1000)

    assert loop.turns.empty < 0.05 * loop.turns.count


def test_a_timer_of_ours_that_starts_itself_again_makes_none(loop: Loop) -> None:
    """gevent's own would fire at once from the second time on."""
    timer = Timer(loop.loop, 0.002, "of a test, again")

    def ring() -> None:
        timer.start(ring)

    timer.start(ring)
    turn_until(lambda: timers.called["of a test, again"] >= 20)

    assert loop.turns.empty < 20
    timer.close()
