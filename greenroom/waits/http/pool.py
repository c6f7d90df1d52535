"""The connections of this process to its upstreams, an `Origin` for each scheme, host, port and TLS setting.

    take: a kept connection, the one used last -> else a slot to open one in -> else wait, first come first served
    give_back: to whoever waits longest -> else kept, until nobody can use it any more

Rules for using a kept connection, so that no call is less reliable than over `requests`' own pools, where each session
has its own connections and a bare call opens one:

    its session, the one that used it last       a safe method (GET, HEAD, OPTIONS): as long as it is kept
                                                 another: within SURE_SECONDS, else the peer may just be closing it
    anybody else                                 a safe method: after QUIET_SECONDS, as an answer that nobody asked for
                                                 mostly comes right behind another; and within QUICK_SECONDS, as
                                                 firewalls and balancers forget connections without a word
                                                 another: never. It gets a new one

An origin with an `owner` is that session's alone, because it logs its connections in (logins.py): as in `requests`, all
its calls use them, and they are closed with it. At most `limit` connections of an origin are open.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, finalize

from gevent.hub import get_hub
from greenlet import getcurrent

from ... import clock
from ...errors import BudgetSpent
from ...in_flight import EVERYWHERE, Wait
from .connection import Connection
from .origin_name import OriginName

# A wait for a slot that nothing else bounds ends after this.
SLOT_TIMEOUT_SECONDS = 60.0
# Servers close what is idle after 2 s (gunicorn), 5 s (Apache, Node, Uvicorn) or more.
SURE_SECONDS = 1.0
# Costs a connection for each hundred calls a second; without it 3 calls of 150,000 met an answer sent behind another.
QUIET_SECONDS = 0.01
# Enough for connections to be shared by four calls a second and more; for fewer, a new one costs little.
QUICK_SECONDS = 0.25
# An upstream that has said something unasked gives bare calls a connection each for so long.
DISTRUST_SECONDS = 600.0
SWEEP_SECONDS = 1.0
# Kept connections of all origins together; beyond, those that are idle longest are closed.
IDLE_CONNECTIONS = 1000
# How many origins without a connection are remembered.
EMPTY_ORIGINS = 1000
SLOT = object()
Key = tuple[str, str, int, Any]  # scheme, host, port, and what of a certificate is checked

logger = logging.getLogger(__name__)


class NoSlot(TimeoutError):
    """No connection to an origin came free in time."""


class Ticket:
    """One who waits for a slot. `given` is SLOT or a connection once it is theirs."""

    __slots__ = ("given", "greenlet", "is_over", "is_safe", "user")

    def __init__(self, greenlet: Any, user: Any, is_safe: bool) -> None:
        self.greenlet = greenlet
        self.user = user
        self.is_safe = is_safe
        self.given: Any = None
        self.is_over = False

    def wake(self) -> None:
        if not self.is_over:
            self.greenlet.switch(self)


class Origin:
    """Where connections lead to. It looks like urllib3's pool in what urllib3's errors and responses ask of one."""

    def __init__(self, pools: "Pools", key: Key, *, has_owner: bool = False) -> None:
        self.pools = pools
        self.key = key
        self.scheme, self.host, self.port, self.verify = key
        self.limit = pools.limit
        self.has_owner = has_owner
        self.is_over = False  # its owner has gone
        self.peer = OriginName(self.scheme, self.host, self.port)
        self.where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self.open = 0  # kept, in use, or being opened
        self.idle: list[Connection] = []
        self.waiting: deque[Ticket] = deque()
        self.distrusted_until = 0.0

    def __str__(self) -> str:
        return f"{self.scheme.upper()}ConnectionPool(host={self.host!r}, port={self.port!r})"

    def take(self, timeout_seconds: float | None, user: Any, *, is_safe: bool) -> Connection | None:
        """A kept connection, or None: there is a slot, open one, and `lose_slot()` if that fails. Raises NoSlot.

        `user` is the session's adapter, `is_safe` says that the method is.
        Runs on: any greenlet; switches when all slots are taken.
        """
        now = self.pools.now()
        for connection in reversed(self.idle):  # the one used last is the least likely to have been closed
            if self._suits(connection, user, is_safe, now):
                self.pools.unkeep(connection)
                if connection.is_quiet():
                    return connection
                connection.drop()
        return self._slot(timeout_seconds, user, is_safe, now)

    def take_slot(self, timeout_seconds: float | None, user: Any) -> None:
        """A slot for a new connection, whatever is kept. Raises NoSlot."""
        connection = self._slot(timeout_seconds, user, False, self.pools.now())
        if connection is not None:
            self.open += 1  # its slot, which closing it gives away
            connection.close()

    def _slot(self, timeout_seconds: float | None, user: Any, is_safe: bool, now: float) -> Connection | None:
        seconds = SLOT_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        self._make_room(user, is_safe and seconds > QUIET_SECONDS, now)
        if self.open < self.limit and not self.waiting:
            self.open += 1
            return None
        return self._wait_for_slot(seconds, user, is_safe)

    def _make_room(self, user: Any, may_share: bool, now: float) -> None:
        """A new connection takes the place of one that is of no use: there are as many as are used at once."""
        for connection in self.idle:
            if now < connection.idle_since + QUIET_SECONDS:
                break  # the first is idle longest
            if not (self.has_owner or connection.has_user()):
                connection.drop()
                return
        if self.open >= self.limit and self.idle and not self._will_suit(self.idle[0], user, may_share):
            self.idle[0].close()

    def _will_suit(self, connection: Connection, user: Any, is_safe: bool) -> bool:
        """Whether it suits once it has been quiet for long enough."""
        return self._suits(connection, user, is_safe, connection.idle_since + QUIET_SECONDS)

    def _suits(self, connection: Connection, user: Any, is_safe: bool, now: float) -> bool:
        """Whether this call may use a connection that is kept, or that was just given back."""
        idle_seconds = now - connection.idle_since
        if self.has_owner:
            most_seconds = self.pools.idle_seconds
        elif connection.was_used_by(user):
            most_seconds = self.pools.idle_seconds if is_safe else SURE_SECONDS
        elif is_safe and now >= connection.idle_since + QUIET_SECONDS and now >= self.distrusted_until:
            most_seconds = QUICK_SECONDS
        else:
            return False
        return is_idle_for_less(connection, idle_seconds, most_seconds)

    def is_of_use(self, connection: Connection, now: float) -> bool:
        """Whether somebody may use it, now or later."""
        is_someones = self.has_owner or connection.has_user()
        most_seconds = self.pools.idle_seconds if is_someones else min(QUICK_SECONDS, self.pools.idle_seconds)
        return is_idle_for_less(connection, now - connection.idle_since, most_seconds)

    def _may_be_kept(self, connection: Connection, now: float) -> bool:
        is_used_up = connection.most_uses is not None and connection.uses >= connection.most_uses
        # A session that logs in has it as long as `requests` has; all others follow a name that moves.
        is_old = not self.has_owner and now - connection.opened_at >= self.pools.age_seconds
        return not (self.is_over or is_used_up or is_old or connection.keep_seconds == 0.0)

    def _wait_for_slot(self, seconds: float, user: Any, is_safe: bool) -> Connection | None:
        if seconds <= 0.0:
            raise self._no_slot(0.0)
        hub: Any = self.pools.hub
        ticket = Ticket(getcurrent(), user, is_safe)
        self.waiting.append(ticket)
        if self.idle:  # not quiet for long enough yet
            quiet_soon = self.idle[0]
            self.pools.unkeep(quiet_soon)
            self._place(quiet_soon, self.pools.now())
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
        # The other side has closed it behind its answer, or says more.
        self.open += 1  # its place is ours, before closing gives it to the next
        connection.drop()
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
        connection.idle_since = now = self.pools.now()
        self._place(connection, now)

    def _place(self, connection: Connection, now: float) -> None:
        """Give it to the first that waits, as soon as it suits; keep it where nobody does."""
        first = self.waiting[0] if self.waiting else None
        if not self._may_be_kept(connection, now):
            connection.close()
        elif first is None:
            self.idle.append(connection)
            self.pools.keep(connection)
        elif self._suits(connection, first.user, first.is_safe, now):
            self._give(connection)
        elif self._will_suit(connection, first.user, first.is_safe):
            timer = self.pools.hub.loop.timer(QUIET_SECONDS)
            timer.start(lambda: self._place(connection, self.pools.now()), update=True)
        else:
            connection.close()  # which gives away its slot

    def adopt(self, connection: Connection) -> None:
        """Make a connection that is in use one of this origin's."""
        if connection.owner is not self:
            before, connection.owner = connection.owner, self
            self.open += 1
            before.lose(connection)

    def distrust(self) -> None:
        """An answer that nobody asked for could be taken for that to somebody's next call."""
        now = self.pools.now()
        if now >= self.distrusted_until and not self.has_owner:
            logger.warning(
                "%s sends more than it is asked for: for %g s, connections to it are not shared by sessions",
                self.where,
                DISTRUST_SECONDS,
            )
        self.distrusted_until = now + DISTRUST_SECONDS

    def end(self) -> None:
        """Its owner has gone: close what is kept, and what is in use when it is given back."""
        self.is_over = True
        for connection in self.idle[:]:
            connection.close()

    def lose(self, connection: Connection) -> None:
        """`connection` has been closed, whoever had it."""
        if connection in self.pools.idle:
            self.pools.unkeep(connection)
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

    # urllib3's HTTPResponse calls this when its answer was read to the end, or is released unread.
    def _put_conn(self, exchange: Any) -> None:
        exchange.finish()


class Pools:
    """All origins of this process. `idle` has the kept connections, the one that is idle longest first."""

    def __init__(
        self, *, limit: int, idle_seconds: float, age_seconds: float, now: Callable[[], float] = clock.now
    ) -> None:
        self.hub: Any = get_hub()
        self.limit = limit
        self.idle_seconds = idle_seconds
        self.age_seconds = age_seconds
        self.now = now
        self.origins: dict[Key, Origin] = {}
        # Those that belong to a session, known by its adapter.
        self.owned: WeakKeyDictionary[Any, dict[Key, Origin]] = WeakKeyDictionary()
        self.idle: dict[Connection, None] = {}
        self._sweeper: Any = None

    def origin(self, key: Key, user: Any, *, is_own: bool) -> Origin:
        """Where a call by `user` goes. `is_own`: to connections of its own, and so will all its calls from then on."""
        if is_own or (self.owned and key in self.owned.get(user, ())):
            return self.own_origin(key, user)
        origin = self.origins.get(key)
        if origin is None:
            if len(self.origins) >= EMPTY_ORIGINS:
                self._forget_unused()
            origin = self.origins[key] = Origin(self, key)
        return origin

    def own_origin(self, key: Key, user: Any) -> Origin:
        origins = self.owned.get(user)
        if origins is None:
            origins = self.owned[user] = {}
            finalize(user, end_all, origins).atexit = False
        if key not in origins:
            origins[key] = Origin(self, key, has_owner=True)
        return origins[key]

    def end_owned(self, user: Any) -> None:
        """A session was closed. It may go on, with new connections."""
        end_all(self.owned.get(user, {}))

    def keep(self, connection: Connection) -> None:
        """`connection` is idle from now on."""
        self.idle[connection] = None
        connection.watch()
        if len(self.idle) > IDLE_CONNECTIONS:
            next(iter(self.idle)).close()
        if self._sweeper is None:
            self._sweep_later()

    def unkeep(self, connection: Connection) -> None:
        connection.unwatch()
        del self.idle[connection]
        owner: Any = connection.owner
        owner.idle.remove(connection)

    def sweep(self) -> None:
        """Close what nobody can use any more, and come again while there is something kept.

        Runs on: the hub.
        """
        self._sweeper = None
        now = self.now()
        for connection in list(self.idle):
            owner: Any = connection.owner
            if not owner.is_of_use(connection, now):
                connection.close()
        if self.idle:
            self._sweep_later()

    def _sweep_later(self) -> None:
        timer = self.hub.loop.timer(min(SWEEP_SECONDS, self.idle_seconds) + 0.1, ref=False)
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
        self.owned.clear()


def is_idle_for_less(connection: Connection, idle_seconds: float, most_seconds: float) -> bool:
    """Whether `idle_seconds` are less than that, and less than its upstream keeps it."""
    told_seconds = connection.keep_seconds
    return idle_seconds < (most_seconds if told_seconds is None else min(most_seconds, told_seconds))


def end_all(origins: dict[Key, Origin]) -> None:
    while origins:
        origins.popitem()[1].end()
