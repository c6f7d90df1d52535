"""Warnings about an engine's connections: more than PostgreSQL has, more than requests, a driver that cannot wait."""

import logging
import sys
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..in_flight import FOREVER
from ..replacements import Put, part

if TYPE_CHECKING:
    from .pool import GreenPool

logger = logging.getLogger(__name__)

SLOTS = (
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true), '0')::int"
)
DRIVERS = ("psycopg2", "psycopg")
IDLE = 0  # libpq's PQTRANS_IDLE


class Share(NamedTuple):
    """The sharers of a database, by the settings: workers times hosts, each with as many requests at most.

    `limit_requests` is 0 where the limit follows the load.
    """

    workers: int
    hosts: int
    limit_requests: int = 0


# Empty: not known.
processes: list[Share] = []


def warn_of_slots(pool: "GreenPool", connection: Any, pools: "Iterable[GreenPool]") -> None:
    """Warn when all processes of this server together can open more connections than PostgreSQL has, and when a worker
    can open more than it may have requests.

    All of `pools` that have connected to the same PostgreSQL count together.
    Runs on: any greenlet, with a pool's first connection; switches.
    """
    if not processes or getattr(pool._dialect, "driver", "") not in DRIVERS:
        return
    share = processes[0]
    try:
        if connection.info.transaction_status != IDLE:
            return  # what the application has begun when it connected is not ours to end
        try:
            with connection.cursor() as cursor:
                cursor.execute(SLOTS)
                slots = cursor.fetchone()[0]
        finally:
            connection.rollback()
        pool.server = (connection.info.host, connection.info.port)
    except Exception as problem:
        logger.info("can't tell how many connections PostgreSQL allows: %s", problem)
        return
    sizes = sorted((each.most for each in pools if each.server == pool.server), reverse=True)
    most = sum(sizes)
    each = "an unlimited number of" if most == FOREVER else f"{most:g}"
    if len(sizes) > 1:
        each += f" ({len(sizes)} pools)"
    fitting = max(1, slots // (share.workers * share.hosts))
    if most > fitting:
        logger.warning(
            "this server may open more database connections than there are: %s for each of %d workers on %d host(s), "
            "and PostgreSQL has %d for everybody. Let pool_size + max_overflow be %d at most, run fewer workers, or "
            "raise max_connections (hosts: GREENROOM_DATABASE_HOSTS)",
            each,
            share.workers,
            share.hosts,
            slots,
            fitting,
        )
    if 0 < share.limit_requests < pool.most:
        logger.warning(
            "a pool of up to %s database connections serves at most %d requests (GREENROOM_LIMIT_REQUESTS): with one "
            "for each request, the others are never used",
            "an unlimited number of" if pool.most == FOREVER else f"{pool.most:g}",
            share.limit_requests,
        )


def warn_of_driver(dialect: Any) -> None:
    """Log an error for psycopg 3 where its queries would stop the whole worker."""
    if getattr(dialect, "driver", "") != "psycopg":
        return
    wait = getattr(sys.modules.get("psycopg.waiting"), "wait", None)
    if wait is not None and not isinstance(wait, FunctionType):
        logger.error(
            "an engine uses psycopg 3, which was imported before patching and waits in C: each of its queries stops "
            "the whole worker. Since SQLAlchemy 2.1 that is what postgresql:// means: write postgresql+psycopg2://, or "
            "import psycopg after patching"
        )


@part("sqlalchemy")
def hint_at_driver(put: Put, module: ModuleType) -> None:
    """Let SQLAlchemy's error for a missing psycopg 3 say why it is wanted at all."""
    dialect: Any = module.PGDialect_psycopg
    plain = dialect.import_dbapi

    def import_dbapi(cls: type) -> Any:
        try:
            return plain()
        except ModuleNotFoundError as problem:
            problem.add_note(
                "Since SQLAlchemy 2.1 postgresql:// means psycopg 3; write postgresql+psycopg2:// for psycopg2."
            )
            raise

    put(dialect, "import_dbapi", classmethod(import_dbapi))
