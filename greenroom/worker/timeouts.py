"""Clients that keep us waiting: heads that do not end, connections that nobody uses, and too many of those.

No timer for each connection: the oldest is first in its list, so one look every SWEEP_SECONDS at the heads of two lists
is enough, whatever their number.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import clock

if TYPE_CHECKING:
    from .connection import Connection

SWEEP_SECONDS = 0.25


class Timeouts:
    """Connections that are idle, and connections that are reading a head, each with the moment that began.

    `dismiss_idle` and `dismiss_slow` say goodbye to a connection: the first has sent nothing, the second half a head.
    """

    def __init__(
        self,
        *,
        keepalive_seconds: float,
        head_timeout_seconds: float,
        dismiss_idle: Callable[["Connection"], None],
        dismiss_slow: Callable[["Connection"], None],
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.keepalive_seconds = keepalive_seconds
        self.head_timeout_seconds = head_timeout_seconds
        self.dismiss_idle = dismiss_idle
        self.dismiss_slow = dismiss_slow
        self.now = now
        # A dict keeps the order of insertion, and nobody's moment is ever before one that is in it already.
        self.idle: dict[Connection, float] = {}
        self.reading: dict[Connection, float] = {}

    def became_idle(self, connection: "Connection") -> None:
        self.idle.pop(connection, None)
        self.idle[connection] = self.now()

    def head_started(self, connection: "Connection") -> None:
        self.idle.pop(connection, None)
        self.reading[connection] = self.now()

    def forget(self, connection: "Connection") -> None:
        if self.idle.pop(connection, None) is None:
            self.reading.pop(connection, None)

    def sweep(self) -> None:
        """Dismiss whoever has been idle or slow for too long."""
        self._dismiss(self.idle, self.now() - self.keepalive_seconds, self.dismiss_idle)
        self._dismiss(self.reading, self.now() - self.head_timeout_seconds, self.dismiss_slow)

    def make_room(self) -> bool:
        """Dismiss the connection that has been idle for longest; False if none is idle."""
        for connection in self.idle:
            self.dismiss_idle(connection)
            return True
        return False

    @staticmethod
    def _dismiss(since: "dict[Connection, float]", until: float, dismiss: Callable[["Connection"], None]) -> None:
        overdue = []
        for connection, moment in since.items():
            if moment > until:
                break
            overdue.append(connection)
        for connection in overdue:
            dismiss(connection)
