"""How full everything is that can be full, a bar for each: CPU, loop, limit, pools, an upstream."""

from collections.abc import Mapping
from typing import Any

from .collect import BLOCKED_SECONDS, Moment, lag_seconds
from .counters import difference
from .shapes import Bar
from .sights import answered
from .together import counted, pools, rate, waited_for
from .verdicts.waiting import concerned
from .verdicts.words import duration

# What a limit counts as while requests queue: a queue may be a burst.
QUEUEING_RATIO = 0.7


def bars(moment: Moment) -> list[Bar]:
    """Rate everything that could be full; 1.0 is full. The page draws a bar for each."""
    rows: list[Bar] = []
    busiest = max(moment.workers, key=lambda seen: seen.cpu_ratio, default=None)
    if busiest is not None:
        rows.append(
            {
                "name": "CPU",
                "ratio": min(1.0, busiest.cpu_ratio),
                "text": f"worker {busiest.number} uses {busiest.cpu_ratio:.0%} of a core",
            }
        )
    rows += [_loop_row(moment), _limit_row(moment)]
    rows += [
        {
            "name": "Database pool" if pool["kind"] == "database" else f"To {pool['name'].partition('//')[2]}",
            "ratio": pool["ratio"],
            "text": f"{pool['in_use']:g} of {pool['size']:g} connections, {pool['waiting']:g} wait"
            + (f"; {pool['fullest']}" if pool["fullest"] else ""),
        }
        for pool in [pool for pool in pools(moment) if _is_of_interest(pool)][:3]
    ]
    waiting = waited_for(moment)
    total = concerned(counted(moment, "in_flight_states"), waiting)
    hosts = [row for row in waiting if row["state"] == "upstream" and row["detail"]]
    if total and hosts:
        most = hosts[0]
        rows.append(
            {
                "name": "Upstream",
                "ratio": min(1.0, most["count"] / total),
                "text": f"{most['count']:g} of {total:g} requests wait for {most['detail']}",
            }
        )
    return rows


def _is_of_interest(pool: Mapping[str, Any]) -> bool:
    """Database pools always; connections to upstreams are many, and worth a word when they run short."""
    return bool(pool["size"]) and (
        pool["kind"] == "database" or pool["waiting"] > 0 or pool["in_use"] >= 0.5 * pool["size"]
    )


def _loop_row(moment: Moment) -> Bar:
    """How late the loops are; full is one that stands still."""
    blocked = [seen for seen in moment.workers if seen.is_blocked and not seen.is_gone]
    if blocked:
        longest = duration(max(seen.silent_seconds for seen in blocked))
        return {
            "name": "Loop",
            "ratio": 1.0,
            "text": f"{len(blocked)} of {len(moment.workers)} workers blocked, for {longest}",
        }
    lag = max((lag_seconds(seen) for seen in moment.workers), default=0.0)
    return {"name": "Loop", "ratio": min(1.0, lag / BLOCKED_SECONDS), "text": f"turns {duration(lag)} late"}


def _limit_row(moment: Moment) -> Bar:
    """A limit that is a number is full at that number. The adaptive one is full when the loops have no time left."""
    workers = [said.get("worker") or {} for _, said in answered(moment)]
    limit, running, queued = (
        sum(worker.get(name, 0) for worker in workers) for name in ("limit_requests", "in_flight", "queued")
    )
    if limit:
        return {"name": "Limit", "ratio": min(1.0, running / limit), "text": f"{running} of {limit}, {queued} queue"}
    grown = difference(moment.sums["loop"], moment.before["loop"])
    busy, idle = grown.get("busy_seconds", 0.0), grown.get("idle_seconds", 0.0)
    ratio = busy / (busy + idle) if busy + idle else 0.0
    text = f"adaptive: loops busy {ratio:.0%}, {running} run, {queued} queue"
    # A queue may be a burst; a request that is turned away has met a limit.
    full = 1.0 if rate(moment, "shed") > 0 else QUEUEING_RATIO if queued else 0.0
    return {"name": "Limit", "ratio": max(ratio, full), "text": text}
