"""psycopg2 waiting in the event loop: libpq asks us to wait for its socket, and we let other greenlets run meanwhile.

Without this a query stops its whole worker, because libpq waits in C where patching does not reach.
Source: psycopg2's documentation, "Support for coroutine libraries".
"""

from collections.abc import Callable
from typing import Any

import psycopg2
from gevent.socket import wait_read, wait_write
from psycopg2 import extensions

from .. import clock

# How long a connection attempt may take when its URL has no connect_timeout.
CONNECT_TIMEOUT_SECONDS = 30.0


class WaitCallback:
    """What psycopg2 calls for every step of connecting and of each query.

    `silence_seconds`: how long PostgreSQL may say nothing at all before its connection is given up. A statement that
    merely takes long is `statement_timeout`'s to end; this one catches a server that stopped or vanished.
    """

    def __init__(self, silence_seconds: float, now: Callable[[], float] = clock.now) -> None:
        self.silence_seconds = silence_seconds
        self.now = now

    def __call__(self, connection: Any) -> None:
        """Wait until libpq has what it needs.

        Raises psycopg2.OperationalError when a new connection takes longer than its connect_timeout, or the server is
        silent for too long; psycopg2 then closes the connection, so no later query can meet the late answer.
        Runs on: any greenlet; switches.
        """
        if connection.status == extensions.STATUS_SETUP:
            # libpq's own connect_timeout has no effect while a callback is installed, so it is kept here.
            self._wait(connection, connect_timeout_seconds(connection.dsn), "connect_timeout: no connection")
        else:
            self._wait(connection, None, "no word from PostgreSQL")

    def _wait(self, connection: Any, total_seconds: float | None, complaint: str) -> None:
        deadline = None if total_seconds is None else self.now() + total_seconds
        while (state := connection.poll()) != extensions.POLL_OK:
            seconds = self.silence_seconds if deadline is None else max(0.0, deadline - self.now())
            too_late = psycopg2.OperationalError(f"{complaint} within {total_seconds or self.silence_seconds:g} s")
            wait = wait_read if state == extensions.POLL_READ else wait_write
            wait(connection.fileno(), seconds, too_late)


def install(silence_seconds: float) -> None:
    """Make every psycopg2 connection of this process wait in the event loop."""
    extensions.set_wait_callback(WaitCallback(silence_seconds))


def is_installed() -> bool:
    return isinstance(extensions.get_wait_callback(), WaitCallback)


def connect_timeout_seconds(dsn: str) -> float:
    """The connect_timeout in `dsn`. As in libpq, 0 or nothing there means no limit; we keep ours then."""
    return float(extensions.parse_dsn(dsn).get("connect_timeout", 0)) or CONNECT_TIMEOUT_SECONDS
