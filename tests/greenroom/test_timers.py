"""A timer that is used again lasts as long as the first time."""

import ast
from collections.abc import Iterator
from pathlib import Path

import gevent
import gevent.event
import pytest

from greenroom import clock
from greenroom.timers import Timer, called

PACKAGE = Path(__file__).parents[2] / "greenroom"
# Made anew for each use, and kept only to be stopped.
MADE_ANEW = {"in_flight.py", "worker/http2/connection.py"}


def lasted(timer: Timer) -> float:
    rang = gevent.event.Event()
    began = clock.now()
    timer.start(rang.set)
    assert rang.wait(10)
    return clock.now() - began


@pytest.fixture
def timer() -> Iterator[Timer]:
    timer = Timer(gevent.get_hub().loop, 0.05, "of a test")
    yield timer
    timer.close()


def test_one_that_has_fired_lasts_as_long_again(timer: Timer) -> None:
    assert [lasted(timer) >= 0.045 for _ in range(3)] == [True] * 3


def test_one_that_was_stopped_begins_anew(timer: Timer) -> None:
    timer.start(lambda: None)
    gevent.sleep(0.03)
    timer.stop()

    assert lasted(timer) >= 0.045


def test_one_that_is_started_while_it_runs_begins_anew_and_fires_once(timer: Timer) -> None:
    rings: list[str] = []
    timer.start(rings.append, "first")
    gevent.sleep(0.03)

    assert lasted(timer) >= 0.045
    gevent.sleep(0.06)
    assert rings == []
    assert not timer.active


def test_it_does_not_count_from_when_the_loop_last_looked_at_its_clock(timer: Timer) -> None:
    until = clock.now() + 0.1
    while clock.now() < until:
        pass

    assert lasted(timer) >= 0.045


def test_a_repeating_one_goes_on_until_it_is_stopped() -> None:
    timer = Timer(gevent.get_hub().loop, 0.01, "of a test, repeating", repeats=True)
    rings: list[float] = []
    enough = gevent.event.Event()

    def ring() -> None:
        rings.append(clock.now())
        if len(rings) == 3:
            timer.stop()
            enough.set()

    timer.start(ring)
    assert enough.wait(10)
    gevent.sleep(0.03)

    assert len(rings) == 3
    assert called["of a test, repeating"] == 3
    timer.close()


def test_a_timer_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="lasts longer"):
        Timer(gevent.get_hub().loop, 0.0, "of a test")


def test_what_is_kept_is_no_timer_of_gevents_that_fires_once() -> None:
    """`self.x = loop.timer(5)` will be started a second time by somebody, and fire at once."""
    # By their place in the package: several are called connection.py.
    trees = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    kept = {name for name, tree in trees.items() if any(keeps_a_timer(node) for node in ast.walk(tree))}

    assert kept == MADE_ANEW


def keeps_a_timer(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
        return False
    made, is_kept = node.value, any(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
    is_timer = isinstance(made.func, ast.Attribute) and made.func.attr == "timer"
    return is_kept and is_timer and not any(word.arg == "repeat" for word in made.keywords)
