"""Greenlets that hold connections of an engine's pool."""

import time
from typing import Any

import gevent
import gevent.event
from sqlalchemy import text
from sqlalchemy.engine import Engine

from greenroom.in_flight import CURRENT, Record

LONG_WAIT_SECONDS = 30.0


def ask(engine: Engine, sql: str = "SELECT 1") -> Any:
    with engine.connect() as connection:
        return connection.execute(text(sql)).scalar()


def hold(engine: Engine, path: str = "") -> tuple[gevent.Greenlet, gevent.event.Event]:
    """A request that holds a connection until the event is set."""
    let_go, has_it = gevent.event.Event(), gevent.event.Event()

    def holding() -> None:
        if path:
            CURRENT.set(Record(time.monotonic(), environ={"REQUEST_METHOD": "GET", "PATH_INFO": path}))
        with engine.connect():
            has_it.set()
            let_go.wait()

    greenlet = gevent.spawn(holding)
    assert has_it.wait(LONG_WAIT_SECONDS)
    return greenlet, let_go
