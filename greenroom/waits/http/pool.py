"""The connections of this process to its upstreams, an `Origin` for each scheme, host, port and TLS setting.

    take: a kept connection, the one used last -> else a slot to open one in -> else wait, first come first served
    give_back: to whoever waits longest -> else kept, until it was idle for too long

At most `limit` connections of an origin are open. The one used last is the one least likely to have been closed by the
other side, and those that a quiet hour doesn't need grow old at the bottom and are closed.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from gevent.hub import get_hub
from greenlet import getcurrent

from ... import clock
from ...errors import BudgetSpent
from ...record import EVERYWHERE, Wait
from .connection import Connection

# A wait for a slot that nothing else bounds ends after this.
SLOT_TIMEOUT_SECONDS = 60.0
# Kept connections of all origins together; beyond, those that are idle longest are closed.
IDLE_CONNECTIONS = 1000
# How many origins without a connection are remembered.
EMPTY_ORIGINS = 1000
SLOT = object()


class NoSlot(TimeoutError):
    """No connection to an origin came free in time."""


class Ticket:
    """One who waits for a slot. `given` is SLOT or a connection once it is theirs."""

    __slots__ = ("given", "greenlet", "is_over")

    def __init__(self, greenlet: Any) -> None:
        self.greenlet = greenlet
        self.given: Any = None
        self.is_over = False

    def wake(self) -> None:
        if not self.is_over:
            self.greenlet.switch(self)


class Peer:
    """An origin as urllib3's errors name a connection to it."""

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port

    def __str__(self) -> str:
        return f"{self.scheme.upper()}Connection(host={self.host!r}, port={self.port!r})"

    def __repr__(self) -> str:
        return f"<{self} at {id(self):#x}>"


class Origin:
    """Where connections lead to. It looks like urllib3's pool in what urllib3's errors and responses ask of one."""

    def __init__(
        self, pools: "Pools", scheme: str, host: str, port: int, limit: int, *, verify: Any, cert: Any
    ) -> None:
        self.pools = pools
        self.scheme = scheme
        self.host = host
        self.port = port
        self.limit = limit
        self.verify = verify
        self.cert = cert
        self.peer = Peer(scheme, host, port)
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.open = 0  # kept, in use, or being opened
        self.idle: list[Connection] = []
        self.waiting: deque[Ticket] = deque()

    def __str__(self) -> str:
        return f"{self.scheme.upper()}ConnectionPool(host={self.host!r}, port={self.port!r})"

    def take(self, timeout_seconds: float | None) -> Connection | None:
        """A kept connection, or None: there is a slot, open one, and `lose_slot()` if that fails. Raises NoSlot.

        Runs on: any greenlet; switches when all slots are taken.
        """
        while self.idle:
            connection = self.idle.pop()
            del self.pools.idle[connection]
            if connection.is_quiet():
                return connection
            connection.close()
        if self.open < self.limit and not self.waiting:
            self.open += 1
            return None
        return self._wait_for_slot(timeout_seconds)

    def take_slot(self, timeout_seconds: float | None) -> None:
        """A slot for a new connection, whatever is kept. Raises NoSlot."""
        if self.open >= self.limit and self.idle:
            self.idle[0].close()
        if self.open < self.limit and not self.waiting:
            self.open += 1
            return
        connection = self._wait_for_slot(timeout_seconds)
        if connection is not None:
            self.open += 1  # its slot, which closing it gives away
            connection.close()

    def _wait_for_slot(self, timeout_seconds: float | None) -> Connection | None:
        seconds = SLOT_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        if seconds <= 0.0:
            raise self._no_slot(0.0)
        hub: Any = self.pools.hub
        ticket = Ticket(getcurrent())
        self.waiting.append(ticket)
        timer = hub.loop.timer(seconds)
        try:
            with Wait("pool", self.where, EVERYWHERE):
                timer.start(ticket.greenlet.switch, timer, update=True)
                try:
                    hub.switch()
                finally:
                    ticket.is_over = True
                    timer.stop()
                    timer.close()
        except BudgetSpent as exc:
            self._withdraw(ticket)
            raise self._no_slot(seconds) from exc
        except BaseException:
            self._withdraw(ticket)
            raise
        if ticket.given is None:
            self._withdraw(ticket)
            raise self._no_slot(seconds)
        if ticket.given is SLOT:
            return None
        connection: Connection = ticket.given
        if connection.is_quiet():
            return connection
        # The other side has closed it behind its answer.
        self.open += 1  # its place is ours, before closing gives it to the next
        connection.close()
        return None

    def _no_slot(self, seconds: float) -> NoSlot:
        return NoSlot(
            f"no connection to {self.where} came free in {seconds:.3g} s ({self.open} open, {len(self.waiting)} more "
            "requests waiting); raise GREENROOM_UPSTREAM_CONNECTIONS or shorten the calls"
        )

    def _withdraw(self, ticket: Ticket) -> None:
        if ticket.given is None:
            self.waiting.remove(ticket)
        elif ticket.given is SLOT:
            self.lose_slot()
        else:
            self.give_back(ticket.given)

    def give_back(self, connection: Connection) -> None:
        """Take back a connection whose answer was read to its end and that can be used again."""
        if self.waiting:
            self._give(connection)
            return
        connection.idle_since = clock.now()
        self.idle.append(connection)
        self.pools.keep(connection)

    def lose(self, connection: Connection) -> None:
        """`connection` has been closed, whoever had it."""
        if connection in self.pools.idle:
            del self.pools.idle[connection]
            self.idle.remove(connection)
        self.lose_slot()

    def lose_slot(self) -> None:
        self.open -= 1
        if self.waiting and self.open < self.limit:
            self.open += 1
            self._give(SLOT)

    def _give(self, what: Any) -> None:
        ticket = self.waiting.popleft()
        ticket.given = what
        # Not at once: this can be a finalizer, in whatever greenlet or thread it happens to run.
        self.pools.hub.loop.run_callback_threadsafe(ticket.wake)

    def is_used(self) -> bool:
        return bool(self.open or self.waiting)

    # What urllib3's HTTPResponse calls when it has read an answer to its end, or somebody says that it need not be.
    def _put_conn(self, exchange: Any) -> None:
        exchange.finish()


class Pools:
    """All origins of this process. `idle` has the kept connections, the one that is idle longest first."""

    def __init__(self, *, limit: int, idle_seconds: float, now: Callable[[], float] = clock.now) -> None:
        self.hub: Any = get_hub()
        self.limit = limit
        self.idle_seconds = idle_seconds
        self.now = now
        self.origins: dict[tuple[Any, ...], Origin] = {}
        self.idle: dict[Connection, None] = {}
        self._sweeper: Any = None

    def origin(self, scheme: str, host: str, port: int, verify: Any = None, cert: Any = None) -> Origin:
        key = (scheme, host, port, verify, cert)
        origin = self.origins.get(key)
        if origin is None:
            if len(self.origins) >= EMPTY_ORIGINS:
                self._forget_unused()
            origin = self.origins[key] = Origin(self, scheme, host, port, self.limit, verify=verify, cert=cert)
        return origin

    def keep(self, connection: Connection) -> None:
        """`connection` is idle from now on."""
        self.idle[connection] = None
        if len(self.idle) > IDLE_CONNECTIONS:
            next(iter(self.idle)).close()
        if self._sweeper is None:
            self._sweep_in(self.idle_seconds)

    def sweep(self) -> None:
        """Close what is idle for too long, and come again when the next is due.

        Runs on: the hub.
        """
        self._sweeper = None
        now = self.now()
        for connection in list(self.idle):
            left = connection.idle_since + self.idle_seconds - now
            if left > 0:
                self._sweep_in(left)
                return
            connection.close()

    def _sweep_in(self, seconds: float) -> None:
        timer = self.hub.loop.timer(seconds + 0.1, ref=False)
        timer.start(self.sweep)
        self._sweeper = timer

    def _forget_unused(self) -> None:
        for key, origin in list(self.origins.items()):
            if not origin.is_used():
                del self.origins[key]

    def close(self) -> None:
        """Close what is kept; what is in use stays in use, and is kept when it is given back."""
        for connection in list(self.idle):
            connection.close()

    def abandon(self) -> None:
        """In a forked child: close the copies of the sockets, and touch nothing that the parent's loop knows of."""
        for connection in self.idle:
            connection.abandon()
        self.idle.clear()
        self.origins.clear()
