"""How a connection to PostgreSQL fails, in words that name the place and say what to do."""

import psycopg2

from .query_wait import Silent

NO_SLOT_WORDS = ("too many clients", "remaining connection slots are reserved", "too many connections for")
NO_SLOTS = (
    "PostgreSQL has no free connection slot: lower the pools (pool_size + max_overflow) of all processes that use it, "
    "run fewer workers, or raise max_connections"
)


def kind_of(exc: psycopg2.OperationalError) -> str:
    """How a connection failed, as `peers` counts it."""
    words = str(exc)
    if isinstance(exc, Silent):
        return "timed_out"
    if any(part in words for part in NO_SLOT_WORDS):
        return "full"
    return "refused" if "refused" in words else "timed_out" if "timeout expired" in words else "failed"


def name_place(exc: psycopg2.OperationalError, name: str) -> None:
    """libpq says of some errors (the server ended the connection, say) not whose they are."""
    host, _, port = name.rpartition(":")
    if exc.args and not (host in str(exc) and port in str(exc)):
        exc.args = (f"connection to {name} failed: {str(exc).strip()}", *exc.args[1:])


def advise(exc: psycopg2.OperationalError) -> None:
    """Say what to do where PostgreSQL has no connection left."""
    if any(part in str(exc) for part in NO_SLOT_WORDS):
        exc.args = (f"{str(exc).rstrip()}\n{NO_SLOTS}",)
