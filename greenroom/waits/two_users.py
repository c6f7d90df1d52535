"""One database connection that two requests use: they take turns, as threads do, and it is told.

Threads that share a connection of psycopg2's wait for each other's statements, and see each other's transactions. With
its own way of waiting in an event loop, psycopg2 refuses the second one instead.
"""

import logging
from typing import Any

import psycopg2
from greenlet import getcurrent
from psycopg2.errors import QueryCanceled

from .. import deadline
from ..errors import BudgetSpent
from ..in_flight import CURRENT, EVERYWHERE, FOREVER, Record, Wait
from . import parking
from .naming import Once, request_name, request_route, shortened
from .query_wait import QueryWait

logger = logging.getLogger(__name__)

told = Once()  # requests that went on in another one's transaction
told_to_wait = Once(10)  # requests that waited for another one's statement


class Turns(parking.WaitQueue):
    """Those who wait until a connection is free. Who finds it free sends its statement before anybody else runs."""

    __slots__ = ("line",)

    def __init__(self, line: QueryWait) -> None:
        super().__init__()
        self.line = line

    def is_free(self) -> bool:
        return self.line.user() is None

    def try_take(self, waiter: parking.Waiter) -> bool:
        return self.is_free()

    def free(self) -> None:
        """Nothing is taken before the statement is sent."""


def take_turn(line: QueryWait, sql: Any) -> None:
    """Wait until nobody else waits for an answer on this connection. Raises psycopg2.Error.

    Runs on: any greenlet; switches.
    """
    if line.greenlet is None and line.copied_by is None:
        return
    user = line.user()
    if user is getcurrent():
        raise psycopg2.ProgrammingError(
            f"{shortened(sql)!r} can't be sent while {shortened(line.sql)!r} runs on the same connection, for the same "
            "greenlet"
        )
    record = CURRENT.get()
    if record is not None and told_to_wait.is_new(request_route(record)):
        logger.warning(
            "one database connection is used by several at once: %s waits until %r of %s is over, before it sends %r. "
            "Give each request, thread and greenlet a session or connection of its own",
            request_name(record),
            shortened(line.sql),
            request_name(line.record),
            shortened(sql),
        )
    if line.turns is None:
        line.turns = Turns(line)
    try:
        with Wait("lock", f"the database connection of {request_name(line.record)}", EVERYWHERE):
            line.turns.wait(parking.waiter(user), FOREVER)
    except BudgetSpent as exc:
        raise QueryCanceled("the request's time is over; the statement was not sent") from exc


def take_turn_to_clean_up(line: QueryWait, sql: str) -> None:
    """The same for what may go on when the request's time is over."""
    if line.user() is not None:
        with deadline.shield():
            take_turn(line, sql)


def tell(line: QueryWait, record: Record, sql: str) -> None:
    """Warn of a request that goes on in another one's transaction: a Session that both have, say."""
    first = line.begun_for() if line.begun_for is not None else None
    if told.is_new(request_route(record)):
        logger.warning(
            "%s asks for %r in a transaction that was begun for %s: each sees, commits and rolls back what the "
            "other does. Give each request a session or connection of its own (db.session, or a scoped_session)",
            request_name(record),
            shortened(sql),
            "a request that is over" if first is None else request_name(first),
        )
