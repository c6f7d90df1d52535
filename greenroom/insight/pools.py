"""The pools of connections, as they say themselves: how large, in use, waited for, and who holds what.

Database pools are those of waits.pool, pools of connections to upstreams those of waits.http; neither is loaded here
where the application has not. Runs on: any thread.
"""

import sys
from collections.abc import Iterator
from typing import Any

from .. import clock
from . import stacks

MOST_UPSTREAMS = 50
MOST_HOLDERS = 20


def all_pools() -> list[dict[str, Any]]:
    return [*map(_database, databases()), *map(_upstream, _upstreams())]


def databases() -> list[Any]:
    module: Any = sys.modules.get("greenroom.waits.pool")
    return [] if module is None else list(module.pools)


def limit(pool: Any) -> int:
    """How many connections a database pool may open; 0: as many as are asked for."""
    return 0 if pool._max_overflow == -1 else int(pool.size() + pool._max_overflow)


def holder_of(connection: Any) -> tuple[Any, Any]:
    """Who has taken this connection of the driver's, and from which pool; (None, None) where that is not known."""
    for pool in databases():
        for entry, holder in list(pool._holders.items()):
            if entry.dbapi_connection is connection:
                return holder, pool
    return None, None


def taken_at(holder: Any) -> str:
    """The line at which a connection was taken from its pool."""
    return f"{stacks.shortened(holder.code.co_filename)}:{holder.line}" if holder.code is not None else ""


def _database(pool: Any) -> dict[str, Any]:
    now = clock.now()
    holders = sorted([*list(pool._holders.values()), *list(pool._opening)], key=_since)
    return {
        "name": pool.logging_name or "QueuePool",
        "kind": "database",
        "size": limit(pool),
        "in_use": len(holders),
        "waiting": len(pool._waiters),
        "holders": [
            {
                "request": getattr(holder.record, "id", ""),
                "route": holder.record.pattern() if hasattr(holder.record, "pattern") else "",
                "seconds": now - holder.since,
                "line": taken_at(holder),
                "is_over": bool(getattr(holder.record, "is_over", False)),
            }
            for holder in holders[:MOST_HOLDERS]
        ],
    }


def _upstreams() -> Iterator[Any]:
    module: Any = sys.modules.get("greenroom.waits.http.install")
    pools = getattr(getattr(module, "_transport", None), "pools", None)
    if pools is None:
        return iter(())
    busy = [origin for origin in list(pools.origins.values()) if origin.is_used()]
    return iter(sorted(busy, key=_pressed)[:MOST_UPSTREAMS])


def _upstream(origin: Any) -> dict[str, Any]:
    return {
        "name": f"{origin.scheme}://{origin.where}",
        "kind": "upstream",
        "size": origin.limit,
        "in_use": origin.open - len(origin.idle),
        "waiting": len(origin.waiting),
        "holders": [],
    }


def _since(holder: Any) -> float:
    return float(holder.since)


def _pressed(origin: Any) -> tuple[int, int]:
    return -len(origin.waiting), len(origin.idle) - origin.open
