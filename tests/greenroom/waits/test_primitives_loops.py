"""Loops that try again whatever happens, in this process, with gevent's own sleep."""

import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import gevent
import pytest

from greenroom import deadline
from greenroom.waits.primitives import hub, loops

NEVER_SECONDS = 60.0


class Held:
    """A context manager that knows how often it is held."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, kind: type | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.count -= 1


@pytest.fixture(autouse=True)
def _untraced() -> Iterator[None]:
    """Where this process is traced (a debugger, coverage), loops are slowed down and not left."""
    if sys.gettrace() is not None:
        pytest.skip("this process is traced")
    hub.install()
    yield
    assert sys.gettrace() is None


def fetch() -> None:
    try:
        gevent.sleep(NEVER_SECONDS)
    finally:
        len("")


def retry(held: Held) -> None:
    while True:
        try:
            fetch()
        except Exception:
            continue


def retry_bare(held: Held) -> None:
    while True:
        try:
            fetch()
        except:  # noqa: E722
            pass


def retry_many_times(held: Held) -> None:
    for _ in range(10**9):
        try:
            fetch()
        except BaseException as exc:
            str(exc)
        finally:
            len("")


def retry_in_with(held: Held) -> None:
    while True:
        with held:
            try:
                fetch()
            except Exception:
                pass


def retry_round_with(held: Held) -> None:
    for _ in iter(int, 1):
        with (
            held,
            held,
        ):
            try:
                with held:
                    fetch()
            except BaseException:
                continue


def retry_of_retries(held: Held) -> None:
    while True:
        try:
            with held:
                retry_bare(held)
        except:  # noqa: E722
            pass


def retry_of_retries_in_one(held: Held) -> None:
    while True:
        try:
            while True:
                try:
                    with held:
                        gevent.sleep(NEVER_SECONDS)
                except:  # noqa: E722
                    pass
        except:  # noqa: E722
            pass


@pytest.mark.parametrize(
    "loop",
    [
        retry,
        retry_bare,
        retry_many_times,
        retry_in_with,
        retry_round_with,
        retry_of_retries,
        retry_of_retries_in_one,
    ],
)
def test_loop_cannot_outlive_the_deadline(loop: Callable[[Held], Any]) -> None:
    held = Held()

    with deadline.budget(0.0), gevent.Timeout(20, AssertionError("it goes on")), pytest.raises(TimeoutError):
        loop(held)

    assert not held.count, "what was entered was left"


def test_loop_lets_others_run_until_it_is_left() -> None:
    turns: list[int] = []

    def other() -> None:
        while True:
            turns.append(1)
            gevent.sleep(0)

    running = gevent.spawn(other)
    with deadline.budget(0.0), pytest.raises(TimeoutError):
        retry(Held())
    running.kill(block=False)

    assert len(turns) > loops.PATIENCE / 4


def test_clean_up_of_many_things_is_not_taken_for_a_loop() -> None:
    closed = []

    with deadline.budget(0.0):
        for number in range(loops.PATIENCE - 5):
            try:
                gevent.sleep(NEVER_SECONDS)
            except TimeoutError:
                closed.append(number)

    assert len(closed) == loops.PATIENCE - 5
