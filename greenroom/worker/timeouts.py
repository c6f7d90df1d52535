"""Clients that keep us waiting: heads that do not end, connections that nobody uses, and too many of those.

No timer for each connection: the oldest is first in its list, so one look every SWEEP_SECONDS at the heads of the lists
is enough, whatever their number.
"""

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent import monkey

from .. import clock

if TYPE_CHECKING:
    from .connection import Connection

SWEEP_SECONDS = 0.25
# How long a client that has got its last answer may go on sending; and how many such clients are borne with.
LINGER_SECONDS = 2.0
MOST_LINGERING = 1000


class Timeouts:
    """Connections that are idle, reading a head or lingering, each with the moment that began.

    `dismiss_idle` and `dismiss_slow` say goodbye to a connection, if nothing has come from it in this very moment: the
    first has sent nothing, the second half a head.
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
        self.lingering: dict[Connection, float] = {}
        # Busy, and with bytes in the kernel that nobody reads yet: behind those the end of the connection is not seen.
        self.deaf: set[Connection] = set()

    def became_idle(self, connection: "Connection") -> None:
        self.idle.pop(connection, None)
        self.idle[connection] = self.now()

    def head_started(self, connection: "Connection") -> None:
        self.idle.pop(connection, None)
        self.reading[connection] = self.now()

    def linger(self, connection: "Connection") -> None:
        self.forget(connection)
        self.lingering[connection] = self.now()
        if len(self.lingering) > MOST_LINGERING:
            next(iter(self.lingering)).close()

    def forget(self, connection: "Connection") -> None:
        if self.idle.pop(connection, None) is None and self.reading.pop(connection, None) is None:
            self.lingering.pop(connection, None)

    def sweep(self) -> None:
        """Dismiss whoever has been idle or slow for too long."""
        self._dismiss(self.idle, self.now() - self.keepalive_seconds, self.dismiss_idle)
        self._dismiss(self.reading, self.now() - self.head_timeout_seconds, self.dismiss_slow)
        self._dismiss(self.lingering, self.now() - LINGER_SECONDS, lambda connection: connection.close())
        self.look_for_the_gone()

    def look_for_the_gone(self) -> None:
        """Tell deaf connections whose clients have left; one system call for all of them. Linux only."""
        if not self.deaf or not hasattr(select, "POLLRDHUP"):
            return
        poll: Any = monkey.get_original("select", "poll")()
        connections = {connection.wire.sock.fileno(): connection for connection in self.deaf}
        for descriptor in connections:
            poll.register(descriptor, select.POLLRDHUP)
        for descriptor, _ in poll.poll(0):
            self.deaf.discard(connections[descriptor])
            connections[descriptor].client_has_left()

    def make_room(self) -> bool:
        """Dismiss the connection that has been idle, or slow with its head, for longest; False if all are busy.

        Idle ones do not go first: among slow heads, the idle one would be the client that has just come.
        """
        idle = next(iter(self.idle.items()), None)
        reading = next(iter(self.reading.items()), None)
        if idle is not None and (reading is None or idle[1] <= reading[1]):
            self.dismiss_idle(idle[0])
        elif reading is not None:
            self.dismiss_slow(reading[0])
        else:
            return False
        return True

    def can_make_room(self) -> bool:
        return bool(self.idle or self.reading)

    @staticmethod
    def _dismiss(since: "dict[Connection, float]", until: float, dismiss: Callable[["Connection"], None]) -> None:
        overdue = []
        for connection, moment in since.items():
            if moment > until:
                break
            overdue.append(connection)
        for connection in overdue:
            if connection in since:
                dismiss(connection)
