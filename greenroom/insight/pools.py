"""The pools of connections, as they say themselves: how large, in use, waited for, and who holds what.

Database pools are those of waits.pool, pools of connections to upstreams those of waits.http; neither is loaded here
where the application has not. Runs on: any thread.
"""

from typing import Any

from .. import clock, observing
from ..observing import DatabasePool, Holder, UpstreamPool
from . import stacks
from .account import Account

MOST_UPSTREAMS = 50
MOST_HOLDERS = 20


def all_pools() -> list[dict[str, Any]]:
    return [*map(_database, databases()), *map(_upstream, _upstreams())]


def databases() -> list[DatabasePool]:
    return [pool for shown in observing.database_pools for pool in shown()]


def holder_of(connection: object) -> tuple[Holder | None, DatabasePool | None]:
    """The request that has taken this connection of the driver's, and the pool; (None, None) if not known."""
    for pool in databases():
        holder = pool.holder_of(connection)
        if holder is not None:
            return holder, pool
    return None, None


def taken_at(holder: Holder) -> str:
    """The line at which a connection was taken from its pool."""
    return f"{stacks.shortened(holder.code.co_filename)}:{holder.line}" if holder.code is not None else ""


def _database(pool: DatabasePool) -> dict[str, Any]:
    now = clock.now()
    holders = pool.holders()
    return {
        "name": pool.name,
        "kind": "database",
        "size": pool.limit,
        "in_use": len(holders),
        "waiting": pool.waiting,
        "holders": [
            {
                "request": "" if holder.record is None else holder.record.id,
                "route": holder.record.pattern() if isinstance(holder.record, Account) else "",
                "seconds": now - holder.since,
                "line": taken_at(holder),
                "is_over": holder.record is not None and holder.record.is_over,
            }
            for holder in holders[:MOST_HOLDERS]
        ],
    }


def _upstreams() -> list[UpstreamPool]:
    busy = [pool for shown in observing.upstream_pools for pool in shown()]
    return sorted(busy, key=lambda pool: (-pool.waiting, -pool.in_use))[:MOST_UPSTREAMS]


def _upstream(pool: UpstreamPool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "kind": "upstream",
        "size": pool.limit,
        "in_use": pool.in_use,
        "waiting": pool.waiting,
        "holders": [],
    }
