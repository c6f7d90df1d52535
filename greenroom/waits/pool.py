"""SQLAlchemy's connection pool, made fair, bounded by the request's budget, and able to say who holds what.

    checkout -> somebody waits already?
                  no  -> an idle connection -> else room for one more? open it
                  else wait in line: until one comes back, there is room, or time is over:
                       sqlalchemy.exc.TimeoutError, with the holders in its message and in the log

It takes the place of QueuePool for every engine of the process: same parameters, same methods, same error. The
differences: the longest wait is served first; a connection that could not be opened lets the next one try; a connection
is asked for a sign of life (pool_pre_ping) only where its socket can't tell; after a fork the child begins anew.
"""

import logging
import sys
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from gevent import monkey
from sqlalchemy import exc
from sqlalchemy.pool.impl import QueuePool
from sqlalchemy.util import queue

from .. import clock, forking, observing
from ..deadline import is_refused
from ..errors import BudgetSpent
from ..in_flight import FOREVER
from ..replacements import Put, part
from . import pool_advice
from .pool_line import Holder, Waiter

if TYPE_CHECKING:
    from sqlalchemy.pool.base import ConnectionPoolEntry

logger = logging.getLogger(__name__)

# A connection that answered this recently is not asked again whether it lives, unless its socket has something to say.
# Long enough to spare it under load; short enough for what a socket can't tell: a proxy whose own backend is gone.
PING_AFTER_SECONDS = 1.0
SHOWN_HOLDERS = 10
LOG_EVERY_SECONDS = 5.0
ROOM = object()
allocate_rlock: Any = monkey.get_original("_thread", "RLock")
pools: "weakref.WeakSet[GreenPool]" = weakref.WeakSet()


class Idle:
    """The connections nobody uses, as SQLAlchemy's own queue has them. Never waits: that is the pool's to do."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self.queue: deque[ConnectionPoolEntry] = deque()

    def empty(self) -> bool:
        return not self.queue

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self.queue)

    def qsize(self) -> int:
        return len(self.queue)

    def put(self, item: "ConnectionPoolEntry", block: bool = True, timeout: float | None = None) -> None:
        if self.full():
            raise queue.Full
        self.queue.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> "ConnectionPoolEntry":
        if not self.queue:
            raise queue.Empty
        return self.queue.pop() if self.use_lifo else self.queue.popleft()

    def put_nowait(self, item: "ConnectionPoolEntry") -> None:
        self.put(item)

    def get_nowait(self) -> "ConnectionPoolEntry":
        return self.get()


class GreenPool(QueuePool):
    """The class in QueuePool's place. It goes by its name, because loggers are named after it."""

    _queue_class: Any = Idle
    _pool: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of the system, and entered again by the thread that has it: a connection may come back from inside, when the
        # garbage collector finds one that somebody forgot. Never held while anything waits.
        self._overflow_lock = allocate_rlock()
        self._waiters: deque[Waiter] = deque()
        self._holders: dict[ConnectionPoolEntry, Holder] = {}
        self._opening: set[Holder] = set()
        self._has_looked_at_slots = False
        self._log_after = 0.0
        self._unlogged = 0
        # Host and port of its PostgreSQL, once it is connected.
        self.server: tuple[str, int] | None = None
        pools.add(self)
        pool_advice.warn_of_driver(self._dialect)

    @property
    def most(self) -> float:
        """The number of connections that it may open."""
        return FOREVER if self._max_overflow == -1 else self.size() + self._max_overflow

    def _do_get(self) -> "ConnectionPoolEntry":
        if is_refused():
            raise exc.TimeoutError("the request's time is over; no database connection was taken")
        taken = self._take()
        holder = Holder()  # from now on, and not from when it began to wait
        entry = taken or self._open(holder)
        try:
            self._look_at(entry)
        except BaseException:
            self._pass_on(entry)  # whatever broke in while it was looked at: its place is not lost
            raise
        self._holders[entry] = holder
        return entry

    def _take(self) -> "ConnectionPoolEntry | None":
        """An idle connection; None: there is room to open one. Raises TimeoutError."""
        with self._overflow_lock:
            idle: Any = self._pool
            if not self._waiters:
                if idle.queue:
                    free: ConnectionPoolEntry = idle.get()
                    return free
                if self._inc_overflow():
                    return None
            waiter = Waiter()
            self._waiters.append(waiter)
            if idle.queue or not -1 < self._max_overflow <= self._overflow:
                self._serve()  # what dispose() has made room for
        if waiter.given is None:
            self._wait_in_line(waiter)
        given = waiter.given
        return None if given is ROOM else given

    def _wait_in_line(self, waiter: Waiter) -> None:
        began = clock.now()
        try:
            waiter.wait(self._timeout, self.logging_name or "QueuePool")
        except BaseException as problem:
            self._leave_line(waiter)
            if waiter.given is ROOM:
                self._room_again()
            elif waiter.given is not None:
                self._pass_on(waiter.given)
            if isinstance(problem, BudgetSpent):
                raise self._exhausted(clock.now() - began) from problem
            raise
        self._leave_line(waiter)
        if waiter.given is None:
            raise self._exhausted(clock.now() - began)

    def _leave_line(self, waiter: Waiter) -> None:
        with self._overflow_lock:
            if waiter.given is None:
                self._waiters.remove(waiter)

    def _serve(self) -> None:
        """Give what there is to those who wait longest."""
        with self._overflow_lock:
            while self._waiters:
                try:
                    what: Any = self._pool.get(False)
                except queue.Empty:
                    if not self._inc_overflow():
                        return
                    what = ROOM
                self._waiters.popleft().give(what)

    def _open(self, holder: Holder) -> "ConnectionPoolEntry":
        self._opening.add(holder)
        try:
            entry = self._create_connection()
        except BaseException:
            self._room_again()
            raise
        finally:
            self._opening.discard(holder)
        return entry

    def _room_again(self) -> None:
        self._dec_overflow()
        self._serve()

    def _inc_overflow(self) -> bool:
        with self._overflow_lock:
            if -1 < self._max_overflow <= self._overflow:
                return False
            self._overflow += 1
            return True

    def _dec_overflow(self) -> Any:
        with self._overflow_lock:
            self._overflow -= 1
        return True

    def _do_return_conn(self, record: "ConnectionPoolEntry") -> None:
        if self._holders.pop(record, None) is None:
            record.close()  # from before a fork: it is not counted here
            return
        self._pass_on(record)

    def _pass_on(self, record: "ConnectionPoolEntry") -> None:
        with self._overflow_lock:
            if self._waiters:
                self._waiters.popleft().give(record)
                return
            try:
                self._pool.put(record, False)
                return
            except queue.Full:
                pass
        try:
            record.close()
        finally:
            self._room_again()

    def _look_at(self, entry: Any) -> None:
        """Find out, mostly without a round trip, whether the server has ended this connection: then it is opened anew.

        Where its socket is silent and it answered a moment ago, pool_pre_ping has nothing to find out. `fresh` is what
        SQLAlchemy calls a connection that it does not ping.
        """
        connection = entry.dbapi_connection
        if not self._has_looked_at_slots:
            self._has_looked_at_slots = True
            pool_advice.warn_of_slots(self, connection, list(pools))
        # Of a connection of ours, see postgres.py. Others may have all attributes that there are: mocks, say.
        line = getattr(connection, "__dict__", {}).get("greenroom_line")
        if line is None:
            return
        if line.has_ended(connection):
            entry.invalidate()
        elif self._pre_ping and clock.now() - line.heard_at < PING_AFTER_SECONDS:
            entry.fresh = True

    def _invalidate(self, connection: Any, exception: BaseException | None = None, _checkin: bool = True) -> None:
        # One query that was cut in time says nothing about the other connections, which stock SQLAlchemy would all
        # replace.
        if getattr(exception, "is_only_this_connection", False):
            if _checkin and getattr(connection, "is_valid", False):
                connection.invalidate(exception)
            return
        super()._invalidate(connection, exception, _checkin)

    def _exhausted(self, seconds: float) -> exc.TimeoutError:
        now = clock.now()
        holders = sorted([*self._holders.values(), *self._opening], key=lambda one: one.since)
        shown = [f"\n  - {one.describe(now)}" for one in holders[:SHOWN_HOLDERS]]
        more = f"\n  - and {len(holders) - SHOWN_HOLDERS} more" if len(holders) > SHOWN_HOLDERS else ""
        text = (
            f"QueuePool limit of size {self.size()} overflow {self.overflow()} reached, connection timed out, timeout "
            f"{seconds if self._timeout is None else self._timeout:.2f}; waited {seconds:.2f} s, {len(self._waiters)} "
            f"more wait. Held by:{''.join(shown)}{more}\nGive connections back "
            "before waiting for something else, or raise pool_size"
        )
        self._unlogged += 1
        if now >= self._log_after:
            logger.warning("database pool exhausted %d times: %s", self._unlogged, text)
            self._log_after, self._unlogged = now + LOG_EVERY_SECONDS, 0
        return exc.TimeoutError(text, code="3o7r")

    def dispose(self) -> None:
        self.server, self._has_looked_at_slots = None, False  # an engine has another pool from now on
        super().dispose()

    def leave_to_parent(self) -> None:
        """In a forked child: begin anew. The connections are the parent's, and are not closed."""
        self._overflow_lock = allocate_rlock()
        self._waiters.clear()
        self._holders.clear()
        self._opening.clear()
        self._pool = Idle(self._pool.maxsize, use_lifo=self._pool.use_lifo)
        self._overflow = -self._pool.maxsize
        self._has_looked_at_slots = False


class View:
    """A pool as insight sees it."""

    def __init__(self, pool: GreenPool) -> None:
        self._pool = pool

    @property
    def name(self) -> str:
        return str(self._pool.logging_name or "QueuePool")

    @property
    def limit(self) -> int:
        return 0 if self._pool.most == FOREVER else int(self._pool.most)

    @property
    def waiting(self) -> int:
        return len(self._pool._waiters)

    def holders(self) -> list[Holder]:
        """Those first that have a connection for longest. Runs on: any thread."""
        return sorted([*list(self._pool._holders.values()), *list(self._pool._opening)], key=lambda one: one.since)

    def holder_of(self, connection: object) -> Holder | None:
        for entry, holder in list(self._pool._holders.items()):
            if entry.dbapi_connection is connection:
                return holder
        return None


def views() -> list[View]:
    return [View(pool) for pool in list(pools)]


observing.show(observing.database_pools, views)


@part("sqlalchemy")
def install(put: Put, workers: int, hosts: int, limit_requests: int = 0) -> None:
    """Take QueuePool's place, for whoever asks for it from now on.

    Called when SQLAlchemy's own pools have just been loaded, or later; engines that are there keep what they have.
    """
    GreenPool.__module__, GreenPool.__name__ = QueuePool.__module__, QueuePool.__name__
    GreenPool.__qualname__ = QueuePool.__qualname__
    pool_advice.processes[:] = [pool_advice.Share(workers, hosts, limit_requests)]
    for name in ("sqlalchemy.pool.impl", "sqlalchemy.pool", "sqlalchemy"):
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "QueuePool"):
            put(module, "QueuePool", GreenPool)
    forking.in_child(leave_to_parent)


def leave_to_parent() -> None:
    for pool in list(pools):
        pool.leave_to_parent()
