"""A greenlet's exit drains the worker; it does not end the requests beside it."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from greenroom import replacements
from greenroom.worker.system_errors import SystemErrors
from tests.greenroom.worker.harness import wait_until


class World:
    """One worker's; `is_serving` is the test's to set."""

    def __init__(self) -> None:
        self.is_serving = True
        self.drained = 0
        SystemErrors(lambda: self.is_serving, self.drain).install()

    def drain(self) -> None:
        self.drained += 1


@pytest.fixture
def world() -> Iterator[World]:
    yield World()
    replacements.undo("system_errors")


def fail(exc: BaseException) -> None:
    raise exc


@pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt(), SystemError("broken extension")])
def test_greenlet_that_ends_the_process_drains_the_worker_and_is_named(
    world: World, exc: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "gunicorn.error"):
        gevent.spawn(fail, exc)
        wait_until(lambda: "ends the process" in caplog.text, "the line")

    assert world.drained == 1
    assert f"in {fail.__name__}" in caplog.text


def test_exit_in_a_callback_of_the_loop_drains_the_worker(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "gunicorn.error"):
        gevent.get_hub().loop.run_callback(sys.exit)
        wait_until(lambda: "a callback of the loop ends the process" in caplog.text, "the line")

    assert world.drained == 1


@pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt()])
def test_before_and_after_serving_the_exit_is_the_main_greenlets_as_in_gevent(world: World, exc: BaseException) -> None:
    world.is_serving = False
    gevent.spawn(fail, exc)

    with pytest.raises(type(exc)):
        gevent.sleep(5)

    assert world.drained == 0


def test_other_errors_stay_gevents(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    failed: Any = gevent.spawn(fail, ValueError("of a greenlet"))
    failed.join(5)

    assert world.drained == 0
    assert "of a greenlet" in capfd.readouterr().err
