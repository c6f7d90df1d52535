"""One database connection that two requests use: refused where they would mix, told where they share a transaction."""

import logging

import psycopg2

from ..in_flight import CURRENT, Record
from .naming import Once, request_name, request_route, shortened
from .query_wait import Line

logger = logging.getLogger(__name__)

told = Once()  # requests that went on in another one's transaction


def refuse(line: Line, sql: str) -> None:
    """Raise ProgrammingError when another greenlet waits for an answer on this connection, naming both."""
    if line.greenlet is not None or line.is_copying:
        raise psycopg2.ProgrammingError(
            f"one database connection is used by two greenlets at once: {request_name(line.record)} waits for "
            f"{shortened(line.sql)!r} on it, and {request_name(CURRENT.get())} asks for {shortened(sql)!r}. Give "
            "each request, thread and greenlet a session or connection of its own"
        )


def tell(line: Line, record: Record, sql: str) -> None:
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
