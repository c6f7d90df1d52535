"""The application's signal handlers belong to nobody's greenlet."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from greenroom.worker.signals import NOT_MAIN, Signals, real_getsignal, real_signal
from tests.greenroom.worker.harness import wait_until


class World:
    """A worker's signals; `is_serving` is the test's to set."""

    def __init__(self) -> None:
        self.is_serving = True
        self.drained = 0
        self.signals = Signals(lambda: self.is_serving, self.drain)

    def drain(self) -> None:
        self.drained += 1


@pytest.fixture
def world() -> Iterator[World]:
    before = real_getsignal(signal.SIGUSR1)
    yield World()
    real_signal(signal.SIGUSR1, before)


def raises(exc: BaseException) -> Any:
    def handler(number: int, frame: Any) -> None:
        raise exc

    return handler


def test_error_out_of_a_handler_is_logged_and_nobodys(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.signals.signal(signal.SIGUSR1, raises(TimeoutError("time is up")))

    with caplog.at_level(logging.ERROR, "gunicorn.error"):
        os.kill(os.getpid(), signal.SIGUSR1)

    assert "handler of SIGUSR1 raised an error" in caplog.text
    assert "time is up" in caplog.text
    assert world.drained == 0


@pytest.mark.parametrize("exc", [SystemExit(0), KeyboardInterrupt()])
def test_exit_out_of_a_handler_drains_the_worker(world: World, exc: BaseException) -> None:
    world.signals.signal(signal.SIGUSR1, raises(exc))

    os.kill(os.getpid(), signal.SIGUSR1)

    assert world.drained == 1


def test_handler_that_comes_while_the_loop_runs_may_wait(world: World) -> None:
    waited: list[int] = []

    def handler(number: int, frame: Any) -> None:
        gevent.sleep(0.01)
        waited.append(number)
        raise SystemExit

    world.signals.signal(signal.SIGUSR1, handler)
    gevent.get_hub().loop.run_callback(os.kill, os.getpid(), signal.SIGUSR1)
    wait_until(lambda: world.drained, "it has ended")

    assert waited == [signal.SIGUSR1]


def test_error_while_the_application_is_imported_comes_up_there(world: World) -> None:
    world.is_serving = False
    world.signals.signal(signal.SIGUSR1, raises(TimeoutError("time is up")))

    with pytest.raises(TimeoutError):
        os.kill(os.getpid(), signal.SIGUSR1)


def test_error_while_the_import_waits_comes_up_there_as_well(world: World) -> None:
    world.is_serving = False
    world.signals.signal(signal.SIGUSR1, raises(TimeoutError("time is up")))
    gevent.spawn(os.kill, os.getpid(), signal.SIGUSR1)

    with pytest.raises(TimeoutError):
        gevent.sleep(60)


def test_handler_is_refused_in_a_greenlet_as_in_a_thread(world: World) -> None:
    refused = gevent.spawn(world.signals.signal, signal.SIGUSR1, print)

    with pytest.raises(ValueError, match=NOT_MAIN):
        refused.get()
    assert real_getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_application_is_given_back_the_handlers_that_it_gave(world: World) -> None:
    def first(*_: Any) -> None: ...

    def second(*_: Any) -> None: ...

    assert world.signals.signal(signal.SIGUSR1, first) is signal.SIG_DFL
    assert world.signals.getsignal(signal.SIGUSR1) is first
    assert world.signals.signal(signal.SIGUSR1, second) is first
    assert world.signals.signal(signal.SIGUSR1, signal.SIG_IGN) is second
    assert world.signals.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    assert world.signals.getsignal(signal.SIGTERM) is real_getsignal(signal.SIGTERM)


def test_words_of_the_refusal_are_cpythons(world: World) -> None:
    said: list[str] = []

    def elsewhere() -> None:
        try:
            real_signal(signal.SIGUSR1, signal.SIG_DFL)
        except ValueError as exc:
            said.append(str(exc))

    gevent.get_hub().threadpool.apply(elsewhere)

    assert said == [NOT_MAIN], sys.version
