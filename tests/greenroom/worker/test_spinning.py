"""A loop that turns without doing anything is counted and named; one that works, or waits, is not."""

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from greenroom import timers
from greenroom.timers import Timer
from greenroom.worker.load import Turns
from greenroom.worker.spinning import LOOKS, SpinWatch

LOOK_SECONDS = 0.05
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


class Loop:
    """The hub's loop, watched."""

    def __init__(self) -> None:
        self.loop = gevent.get_hub().loop
        self.work = 0.0
        self.turns = Turns(self.loop, lambda idle: None, lambda: None, lambda: self.work)
        self.turns.start()
        # What the thread uses of its core in these looks is the machine's affair; see the tests of the share.
        self.watch = SpinWatch(self.turns, cpu=lambda: self.turns.empty_seconds)

    def look(self) -> bool:
        """Whether it spins, seen from a greenlet that only waits."""
        for _ in range(LOOKS + 1):
            gevent.sleep(LOOK_SECONDS)
            self.watch.look()
        return self.watch.is_spinning

    def spins(self) -> bool:
        """The same, on a machine that may take the core away for some looks."""
        return any(self.look() for _ in range(40))


@pytest.fixture
def watched() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.turns.stop()


@pytest.fixture
def again(watched: Loop) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Have something called in each turn of the loop."""
    ready, other = socket.socketpair()
    watcher = watched.loop.io(ready.fileno(), WRITABLE)
    yield watcher.start
    watcher.stop()
    watcher.close()
    ready.close()
    other.close()


def test_a_loop_that_waits_is_quiet(watched: Loop, said: Said) -> None:
    assert not watched.look()
    assert said.lines == []


def test_an_event_that_nobody_takes_is_a_spin_of_the_application(
    watched: Loop, said: Said, again: Callable[[Callable[[], object]], None]
) -> None:
    again(lambda: None)

    assert watched.spins()
    assert watched.turns.empty > 100
    assert len(said.lines) == 1
    assert "nothing of the server's own makes it turn" in said.lines[0]


def test_what_of_ours_spins_is_named(watched: Loop, said: Said, again: Callable[[Callable[[], object]], None]) -> None:
    def spin() -> None:
        timers.called["of a test, spinning"] += 1

    again(spin)

    assert watched.spins()
    assert "called most often: of a test, spinning, " in said.lines[0]


def test_a_loop_that_serves_many_short_requests_does_not_spin(
    watched: Loop, said: Said, again: Callable[[Callable[[], object]], None]
) -> None:
    def serve() -> None:
        watched.work += 1

    again(serve)

    assert not watched.look()
    assert said.lines == []


def test_a_timer_of_ours_that_starts_itself_again_does_not_spin(watched: Loop) -> None:
    """gevent's own would fire at once from the second time on."""
    timer = Timer(watched.loop, 0.002, "of a test, again")

    def ring() -> None:
        timer.start(ring)

    timer.start(ring)

    assert not watched.look()
    assert timers.called["of a test, again"] < 1000
    timer.close()


def test_the_log_line_comes_once_in_ten_seconds(
    watched: Loop, said: Said, again: Callable[[Callable[[], object]], None]
) -> None:
    again(lambda: None)

    for _ in range(3):
        assert watched.spins()

    assert len(said.lines) == 1


class Shares:
    """A loop of which is known what it used and what went into empty turns, in looks of a quarter second."""

    def __init__(self) -> None:
        self.time = self.used = 0.0
        self.turns: Any = SimpleNamespace(empty=0, empty_seconds=0.0)
        self.watch = SpinWatch(self.turns, lambda: self.time, lambda: self.used)

    def looks(self, *, used: float, empty: float, times: int = LOOKS) -> bool:
        for _ in range(times):
            self.time += 0.25
            self.used += used
            self.turns.empty_seconds += empty
            self.turns.empty += 1000
            self.watch.look()
        return self.watch.is_spinning


@pytest.mark.parametrize(
    ("used", "empty", "spins"),
    [
        (0.25, 0.25, True),  # a core of its own
        (0.02, 0.02, True),  # of a machine that is busy with others
        (0.25, 0.02, False),  # it works
        (0.003, 0.003, False),  # it waits
        (0.0, 0.0, False),
    ],
)
def test_a_spin_is_a_share_of_what_the_thread_used(said: Said, used: float, empty: float, spins: bool) -> None:
    assert Shares().looks(used=used, empty=empty) is spins


def test_one_look_is_no_spin(said: Said) -> None:
    shares = Shares()

    assert not shares.looks(used=0.25, empty=0.25, times=LOOKS - 1)
    assert not shares.looks(used=0.25, empty=0.0, times=1)
    assert not shares.looks(used=0.25, empty=0.25, times=LOOKS - 1)
    assert said.lines == []
