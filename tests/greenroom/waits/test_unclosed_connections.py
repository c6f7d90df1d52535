"""Connections that their thread left open are collected when a few are, and told of once."""

import gc
import logging
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from greenroom.waits import unclosed_connections as module
from greenroom.waits.unclosed_connections import MOST_LEFT, SHARE, TOLD_AT, LeftOpen


class Connection:
    closed = 0


@pytest.fixture
def looked(clock: Any, monkeypatch: pytest.MonkeyPatch) -> LeftOpen:
    monkeypatch.setattr(module, "is_loop_thread", lambda: True)

    def collect() -> int:
        clock.advance(0.1)
        return gc.collect()

    return LeftOpen(now=clock.now, collect=collect)


def open_in_thread(looked: LeftOpen, keep: Callable[[Any], Any]) -> None:
    def request() -> None:
        connection = Connection()
        keep(connection)
        looked.opened(connection)

    gevent.spawn(request).get(timeout=10)


def in_a_circle(connection: Any) -> None:
    connection.itself = connection


def test_garbage_is_closed_before_there_is_much_of_it(looked: LeftOpen, caplog: pytest.LogCaptureFixture) -> None:
    most = 0
    gc.disable()
    try:
        for _ in range(30):
            open_in_thread(looked, in_a_circle)
            looked.next_at = 0.0  # the share of the time has another test
            gevent.sleep(0)
            most = max(most, len(looked._left()))
    finally:
        gc.enable()

    assert most <= MOST_LEFT + 1
    assert looked.garbage >= TOLD_AT
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "CONN_MAX_AGE" in caplog.text


def test_connections_that_somebody_keeps_are_looked_at_once(looked: LeftOpen, caplog: pytest.LogCaptureFixture) -> None:
    pool: list[Any] = []
    for _ in range(MOST_LEFT):
        open_in_thread(looked, pool.append)

    looked.look()

    assert looked.open == []
    assert looked.garbage == 0
    assert not caplog.records


def test_collecting_takes_a_share_of_the_time_only(looked: LeftOpen, clock: Any) -> None:
    looked.look()

    assert looked.next_at - clock.now() == pytest.approx(0.1 / SHARE)
