"""Requests that query PostgreSQL, and what it says of them."""

import time
from collections.abc import Callable
from typing import Any

import gevent
from psycopg2 import extensions

from greenroom.in_flight import CURRENT, Record

LONG_WAIT_SECONDS = 30.0
# As the issue has it: a query of a request that is over is still active in PostgreSQL for no longer than this. Ten
# times as long here, because the machine may be busy; without cancelling it would be the query's 30 seconds.
ACTIVE_SECONDS = 2.0
SLEEP = "SELECT pg_sleep(30)"


class OwnConnection(extensions.connection):
    """As applications write them that know only psycopg2's class."""

    def __init__(self, dsn: str) -> None:
        extensions.connection.__init__(self, dsn)  # type: ignore[call-arg]


def rows(cursor: Any, sql: str, values: Any = None) -> list[Any]:
    cursor.execute(sql, values)
    return cursor.fetchall()


def wait_until(condition: Callable[[], object], what: str, seconds: float = LONG_WAIT_SECONDS) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {seconds:g} s in vain: {what}"
        gevent.sleep(0.005)


def is_active(watcher: Any, pid: int) -> bool:
    return bool(rows(watcher, "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'", [pid]))


def in_request(record: Record, call: Callable[[], Any]) -> gevent.Greenlet:
    """A greenlet that works for this request."""

    def run() -> Any:
        CURRENT.set(record)
        record.greenlet = gevent.getcurrent()
        try:
            return call()
        except Exception as exc:
            return exc

    return gevent.spawn(run)


def request_to(path: str, seconds: float = LONG_WAIT_SECONDS) -> Record:
    now = time.monotonic()
    return Record(now, now + seconds, environ={"REQUEST_METHOD": "GET", "PATH_INFO": path})
