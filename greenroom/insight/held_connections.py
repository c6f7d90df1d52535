"""Database connections that are kept while an upstream is waited for: both lines, and what it costs.

A pool's connection that stands in a transaction while its request waits for somebody else serves nobody. With H, how
long a request keeps a connection, and U, how much of that it waits for upstreams,

    one connection serves           1 / H         requests a second
    released before the call        1 / (H - U)
    gain                            H / (H - U)

times the connections that the pool may have, until something else is the limit. A connection counts as kept from its
first query in the request until its last one (COMMIT and ROLLBACK are queries), while PostgreSQL says that it is in a
transaction, and nobody else has used it since; with autocommit, while it was not given back to its pool. After commit
or rollback nothing is said.
"""

import logging
import sys
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from .. import clock
from ..frames import Innermost, line_of
from ..in_flight import Record
from ..observing import Query
from . import pools, stacks
from .account import Account

logger = logging.getLogger("gunicorn.error")

MOST_PAIRS = 100
# A wait that is shorter than this is no reason to write other code.
SHORTEST_SECONDS = 0.002
TRANSACTION = ("BEGIN", "COMMIT", "ROLLBACK")  # ask for nothing
FROM_QUERY = 3  # from `find`: `used`, the wait and psycopg2's callback
IN_TRANSACTION = (2, 3)  # libpq's PQTRANS_INTRANS, PQTRANS_INERROR


class Hold:
    """A connection that a request uses, and the line of its last statement. Kept with the connection: its `note`."""

    __slots__ = ("account", "call", "code", "connection", "instruction", "last", "since")

    def __init__(self, connection: Any) -> None:
        self.connection = weakref.ref(connection)
        self.begin(None, 0.0)

    def begin(self, account: Account | None, now: float) -> None:
        self.account = account  # None: it is over, or somebody else uses the connection since
        self.since = self.last = now
        self.code: Any = None  # the application's, and where in it
        self.instruction = 0
        self.call: stacks.Call | None = None  # where nothing of the application's was to be seen

    @property
    def place(self) -> str:
        """Worked out when it is wanted: each query would pay for it."""
        if self.code is None:
            return self.call.place if self.call is not None else ""
        return stacks.Call(self.code.co_filename, line_of(self.code, self.instruction), "").place


@dataclass(slots=True)
class Pair:
    """A line that used a connection, and one that waited for an upstream while it was kept."""

    used: str
    upstream: str
    taken: str  # where the connection was taken from its pool; "" if it is of no pool that we know
    connections: int  # that the pool may have in one worker; 1 where that is not known
    host: str
    route: str
    count: int = 0
    seconds: float = 0.0  # waited for upstreams
    held_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second that the pool serves at most."""
        return self.connections * self.count / self.held_seconds if self.held_seconds else 0.0

    @property
    def rate_released(self) -> float:
        needed = max(self.held_seconds - self.seconds, self.held_seconds / 1000)
        return self.connections * self.count / needed if needed else 0.0

    def as_dict(self) -> dict[str, Any]:
        gain = self.rate_released / self.rate if self.rate else 1.0
        return {**asdict(self), "rate": self.rate, "rate_released": self.rate_released, "gain": gain}

    @property
    def _those(self) -> str:
        return "a connection serves" if self.connections == 1 else f"the {self.connections} of a worker serve"

    def __str__(self) -> str:
        return (
            f"held: a database connection last used at {self.used} was kept for {self.seconds / self.count:.3f} s "
            f"while {self.upstream} waited for {self.host or 'an upstream'} (route {self.route}); {self._those} "
            f"{self.rate:.1f} requests/s like this, and {self.rate_released:.1f} if it is released before the call "
            "(commit or rollback)"
        )


class Held:
    """All pairs of lines of a worker."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self.now = now
        self.pairs: dict[tuple[str, str], Pair] = {}
        self.application = Innermost(_is_installed)
        self.queries: Any = None  # a Queries, which shares what is found here

    def used(self, record: Record, connection: object, line: Query) -> None:
        """A statement is sent: `line.sql`. Runs on: request greenlet."""
        if type(record) is not Account or record.ended:
            return
        now, hold, sql = self.now(), line.note, line.sql
        if type(hold) is not Hold:
            hold = None
        if hold is None or hold.account is not record:
            hold = line.note = self._begun(record, connection, hold, now)
        hold.last = now
        if sql in TRANSACTION:
            return  # it goes before a statement, or the connection is free after it: nobody will ask for its line
        frame = self.application.find(FROM_QUERY)
        if frame is not None:
            hold.code, hold.instruction = frame.f_code, frame.f_lasti
        else:
            hold.code, hold.call = None, stacks.guilty_of_frame(sys._getframe(1)) or hold.call
        if self.queries is not None:
            self.queries.asked(record, hold.code, hold.instruction, sql)

    @staticmethod
    def _begun(account: Account, connection: Any, hold: Hold | None, now: float) -> Hold:
        """A request begins to use a connection. The note of one that is over serves again."""
        if hold is None:
            hold = Hold(connection)
        elif hold.account is not None:
            hold.account = None
            hold = Hold(connection)
        hold.begin(account, now)
        if account.holds is None:
            account.holds = [hold]
        else:
            account.holds.append(hold)
        return hold

    def suspended(self, account: Account, host: str, greenlet: Any) -> tuple[str, str] | None:
        """A request begins to wait for an upstream; the pair of lines if it keeps a connection meanwhile."""
        holds: list[Hold] = account.holds or []
        for hold in holds:
            connection = hold.connection()
            if connection is None or connection.closed or hold.account is not account:
                continue
            if connection.get_transaction_status() in IN_TRANSACTION or self._is_of_account(connection, account):
                call = stacks.guilty_of_frame(greenlet.gr_frame)
                pair = (hold.place, call.place if call is not None else "")
                if pair not in self.pairs and len(self.pairs) < MOST_PAIRS:
                    holder, pool = pools.holder_of(connection)
                    taken = pools.taken_at(holder) if holder is not None else ""
                    self.pairs[pair] = Pair(*pair, taken, (pool.limit if pool is not None else 0) or 1, host, "")
                return pair
        return None

    @staticmethod
    def _is_of_account(connection: Any, account: Account) -> bool:
        """Whether a connection that knows no transactions was taken from its pool and not given back."""
        return bool(connection.autocommit) and getattr(pools.holder_of(connection)[0], "record", None) is account

    def finish(self, account: Account) -> None:
        """Runs on: request greenlet, at its end."""
        holds, kept = account.holds, account.kept
        account.holds = account.kept = None
        if not holds:
            return
        for hold in holds:
            if hold.account is account:
                hold.account = None
        if not kept:
            return
        held_seconds = max(hold.last - hold.since for hold in holds)
        for key, seconds in kept.items():
            pair = self.pairs.get(key)
            if pair is None or seconds < SHORTEST_SECONDS:
                continue
            is_new = not pair.count
            pair.route = account.pattern()
            pair.count += 1
            pair.seconds += seconds
            pair.held_seconds += max(held_seconds, seconds)
            if is_new:
                logger.warning("%s", pair, extra={"request_id": account.id})

    def as_list(self) -> list[dict[str, Any]]:
        """The worst first. Runs on: any thread."""
        pairs = [pair for pair in list(self.pairs.values()) if pair.count]
        return [pair.as_dict() for pair in sorted(pairs, key=_seconds, reverse=True)]


def _is_installed(frame: Any) -> bool:
    return stacks.is_installed(frame.f_code.co_filename)


def _seconds(pair: Pair) -> float:
    return pair.seconds
