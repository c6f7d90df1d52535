"""The cost of one request, from the ops page's view of a server that is hardly asked."""

from ..load.units import LoadError
from ..ops.shapes import View
from .model import Costs

# In the order in which insight writes them; greenroom.insight.account has them, and imports the server.
STATES = ("cpu", "ready", "upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other")


def costs_of(view: View, latency_seconds: float) -> Costs:
    """`latency_seconds` is what the client measured. Raises LoadError when the page has counted nothing."""
    rows = [row for row in view.get("routes") or [] if row.get("rate") and row.get("seconds")]
    whole = sum(row["rate"] for row in rows)
    if not whole:
        raise LoadError(
            "the ops page has counted no request: serve with GREENROOM_INSIGHT=yes and worker class greenroom"
        )
    seconds = {
        state: sum(row["seconds"][number] * row["rate"] for row in rows) / whole for number, state in enumerate(STATES)
    }
    held = sum(float(row.get("seconds") or 0.0) for row in view.get("held") or [])
    count = sum(row.get("count") or 0 for row in view.get("routes") or [])
    # Queries, and what else a request waited for with a connection in its hands.
    database = seconds["query"] + (held / count if count else 0.0)
    stalls = (view["stalls"].get("top") or []) if "stalls" in view else []
    memory = max((int(worker.get("rss_bytes") or 0) for worker in view.get("workers") or []), default=0)
    # A slice ends by the clock, also while the machine gives the CPU to others: what the system charged is less then.
    charged = sum(float(worker.get("cpu_ratio") or 0.0) for worker in view.get("workers") or []) / whole
    return Costs(
        min(seconds["cpu"], charged) if charged else seconds["cpu"],
        latency_seconds,
        database,
        seconds["upstream"],
        memory,
        str(stalls[0]["line"]) if stalls else "",
    )


def pool_size(view: View) -> int | None:
    """Connections that a worker's database pool has now; None without one."""
    for pool in view.get("pools") or []:
        if pool.get("kind") == "database" and pool.get("size"):
            return int(pool["size"] // max(1, pool.get("workers") or 1))
    return None
