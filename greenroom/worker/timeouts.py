"""Clients that keep us waiting: handshakes and heads that do not end, idle connections, and too many of those.

No timer for each connection: the oldest is first in its list, so one look every SWEEP_SECONDS at the heads of the lists
is enough, whatever their number.
"""

import select
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from gevent import monkey

from .. import clock
from .progress import TakesNothing, unacknowledged
from .transport import Transport

SWEEP_SECONDS = 0.25
# How long a client that has got its last answer may go on sending; and how many such clients are borne with. One that
# is still reading that answer has time for it: whatever it sends to a closed connection costs it the rest.
LINGER_SECONDS = 2.0
MOST_LINGERING = 1000
# At the limit of connections, a handshake has so much time before it makes room: a round trip or two.
GREETING_SECONDS = 0.1


class Greeting(Protocol):
    """A client that has not finished its handshake."""

    def close(self) -> None: ...


class Client(Greeting, Protocol):
    """A connection that has a protocol."""

    @property
    def sock(self) -> Transport: ...

    def close_if_idle(self) -> None:
        """Close, if nothing has come in this very moment."""

    def dismiss_if_slow(self) -> None:
        """Refuse half a head, unless its rest has come in this very moment."""

    def client_has_left(self) -> None: ...


class Timeouts:
    """Connections in their handshake, idle, reading a head or lingering, each with the moment that began.

    `taking`: lingering ones whose clients have not taken all of their last answer.
    """

    def __init__(
        self,
        *,
        keepalive_seconds: float,
        head_timeout_seconds: float,
        handshake_timeout_seconds: float = 10.0,
        send_timeout_seconds: float = 30.0,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.keepalive_seconds = keepalive_seconds
        self.head_timeout_seconds = head_timeout_seconds
        self.handshake_timeout_seconds = handshake_timeout_seconds
        self.send_timeout_seconds = send_timeout_seconds
        self.now = now
        # A dict keeps the order of insertion, and nobody's moment is ever before one that is in it already.
        self.greeting: dict[Greeting, float] = {}
        self.idle: dict[Client, float] = {}
        self.reading: dict[Client, float] = {}
        self.lingering: dict[Client, float] = {}
        self.taking: dict[Client, TakesNothing] = {}
        # Busy, and with bytes in the kernel that nobody reads yet: behind those the end of the connection is not seen.
        self.deaf: set[Client] = set()

    def handshake_began(self, greeting: Greeting) -> None:
        self.greeting[greeting] = self.now()

    def became_idle(self, connection: Client) -> None:
        self.idle.pop(connection, None)
        self.idle[connection] = self.now()

    def head_started(self, connection: Client) -> None:
        self.idle.pop(connection, None)
        self.reading[connection] = self.now()

    def linger(self, connection: Client) -> None:
        self.forget(connection)
        self.lingering[connection] = self.now()
        if len(self.lingering) + len(self.taking) > MOST_LINGERING:
            next(iter(self.taking or self.lingering)).close()

    def end_lingering(self, until: float) -> None:
        """Close those that have lingered since `until`, but for clients that still take their answer."""
        for connection, progress in list(self.taking.items()):
            if not progress.left():
                self.linger(connection)  # what it has sent meanwhile may be on its way
            elif progress.is_given_up():
                connection.close()
        for connection in _overdue(self.lingering, until):
            if unacknowledged(connection.sock):
                del self.lingering[connection]
                self.taking[connection] = TakesNothing(connection.sock, self.send_timeout_seconds)
            else:
                connection.close()

    def forget(self, connection: Any) -> None:
        waiting: tuple[dict[Any, Any], ...] = (self.idle, self.reading, self.lingering, self.greeting, self.taking)
        for some in waiting:
            if some.pop(connection, None) is not None:
                return

    def sweep(self) -> None:
        """Dismiss whoever has been idle or slow for too long."""
        now = self.now()
        for greeting in _overdue(self.greeting, now - self.handshake_timeout_seconds):
            greeting.close()
        for connection in _overdue(self.idle, now - self.keepalive_seconds):
            if connection in self.idle:
                connection.close_if_idle()
        for connection in _overdue(self.reading, now - self.head_timeout_seconds):
            if connection in self.reading:
                connection.dismiss_if_slow()
        self.end_lingering(now - LINGER_SECONDS)
        self.look_for_the_gone()

    def look_for_the_gone(self) -> None:
        """Tell deaf connections whose clients have left; one system call for all of them. Linux only."""
        if not self.deaf or not hasattr(select, "POLLRDHUP"):
            return
        poll: Any = monkey.get_original("select", "poll")()
        connections = {connection.sock.fileno(): connection for connection in self.deaf}
        for descriptor in connections:
            poll.register(descriptor, select.POLLRDHUP)
        for descriptor, _ in poll.poll(0):
            self.deaf.discard(connections[descriptor])
            connections[descriptor].client_has_left()

    def make_room(self, is_full: Callable[[], bool]) -> None:
        """Dismiss those that have been idle, or slow with their handshake or head, for longest, while it `is_full()`.

        Idle ones do not go first: among slow heads, the idle one would be the client that has just come. One that is
        found to have sent something is not dismissed for being idle, so the next ones are looked at, too: thousands
        that each send half a head would else all stay.
        """
        while is_full():
            waiting = self._next_to_go()
            if waiting is None:
                return
            connection = next(iter(waiting))
            self._dismiss(connection)
            if connection in waiting:
                return

    def _next_to_go(self) -> dict[Any, float] | None:
        """Those whose first is to be dismissed next; None when all are busy, or in a handshake that has just begun.

        Else clients that come again as soon as they are dismissed would push out whoever is in the middle of one.
        """
        some = [(next(iter(each.values())), each) for each in (self.greeting, self.idle, self.reading) if each]
        since, oldest = min(some, key=itemgetter(0), default=(0.0, None))
        return None if self.greeting and self.now() - since < GREETING_SECONDS else oldest

    def _dismiss(self, connection: Any) -> None:
        if connection in self.greeting:
            connection.close()
        elif connection in self.idle:
            connection.close_if_idle()
        else:
            connection.dismiss_if_slow()

    def can_make_room(self) -> bool:
        return self._next_to_go() is not None


Waiting = TypeVar("Waiting")


def _overdue(since: dict[Waiting, float], until: float) -> list[Waiting]:
    """Those whose moment is not after `until`. The first in the dict are the oldest."""
    found = []
    for one, moment in since.items():
        if moment > until:
            break
        found.append(one)
    return found
