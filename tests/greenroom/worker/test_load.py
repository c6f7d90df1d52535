"""Slices of requests and turns of the loop are measured, whoever resumes what."""

import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import pytest
from gevent.threadpool import ThreadPool

from greenroom.worker.load import RequestGreenlet, Turns, run_metered


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
