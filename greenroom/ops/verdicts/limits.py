"""Limits of the machine that are near: descriptors, disks, memory that grows."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..collect import Moment
from ..shapes import View
from .finding import BAD, LAGGING_SECONDS, WATCH, Finding, finding
from .words import duration, size

NEARLY_FULL = 0.9
FULL = 0.98
FEW_FREE_BYTES = 200e6
FREE_DISK_RATIO = 0.01
# Memory that lasts longer than this at the rate it grows is nobody's trouble tonight.
SOON_SECONDS = 6 * 3600.0
VERY_SOON_SECONDS = 600.0
# Of the periods of a CPU quota, 100 ms each.
STOPPED_RATIO, MOSTLY_STOPPED_RATIO = 0.25, 0.5


def descriptors(moment: Moment, seen: View) -> list[Finding]:
    rows = [row for row in seen["limits"].get("descriptors") or [] if row["used"] >= NEARLY_FULL * row["limit"]]
    if not rows:
        return []
    worst = max(rows, key=lambda row: row["used"] / row["limit"])
    worker = next((one for one in seen["workers"] if one["number"] == worst["worker"]), None)
    clients = f"; {worker['connections']:g} of them are clients' connections" if worker else ""
    return [
        finding(
            BAD if worst["used"] >= FULL * worst["limit"] else WATCH,
            f"Worker {worst['worker']} has {worst['used']} of {worst['limit']} file descriptors open{clients}: new "
            "connections and files fail or wait.",
            "Raise the limit of open files (ulimit -n, LimitNOFILE= in the systemd unit) and start the server anew; if "
            "they grow without end, something opens and does not close: ls -l /proc/PID/fd.",
            cause="descriptors",
        )
    ]


def disks(moment: Moment, seen: View) -> list[Finding]:
    for disk in seen["limits"].get("disks") or []:
        is_full = disk["free_bytes"] < FREE_DISK_RATIO * disk["total_bytes"] and disk["free_bytes"] < FEW_FREE_BYTES
        if is_full or disk["free_files_ratio"] < FREE_DISK_RATIO:
            what = f"has {size(disk['free_bytes'])} of {size(disk['total_bytes'])} free"
            if not is_full:
                what = "has hardly any inode free (too many small files)"
            return [
                finding(
                    WATCH,
                    f"The disk of {disk['path']} {what}.",
                    "Make room before writes fail (ENOSPC): du -xh / | sort -h | tail",
                    cause="disk_full",
                )
            ]
    return []


def memory(moment: Moment, seen: View) -> list[Finding]:
    grown = seen["limits"].get("growth")
    if not grown or grown["until_full_seconds"] > SOON_SECONDS:
        return []
    left = grown["until_full_seconds"]
    rows = [row for row in seen["growing"] if row["bytes"] > 1000]
    route = rows[0] if rows and _explains(rows) else None
    rate = f"{size(grown['bytes_per_second'])}/s"
    each = f"{size(grown['bytes_per_request'])} for each request" if grown["bytes_per_request"] else rate
    if route is not None:
        each = f"{size(route['bytes'])} for each request of {route['route']}"
    keeps = f"{route['route']} keeps" if route else "Something keeps"
    total = size((seen["limits"].get("memory") or {}).get("limit_bytes") or 0.0)
    return [
        finding(
            BAD if left < VERY_SOON_SECONDS else WATCH,
            f"Memory grows by {each} ({rate}): the limit of {total} is reached in {duration(left)}.",
            f"{keeps} what it makes: a list or dict at module level, "
            "a cache without a bound, @lru_cache on a method. Until it is found GREENROOM_WORKER_MEMORY_MB or "
            "max_requests replaces workers in time.",
            cause="memory_grows",
            route=route["route"] if route else "",
        )
    ]


def throttled(moment: Moment, seen: View) -> list[Finding]:
    """A CPU quota that stops all workers at once, again and again: a core may be idle, and they may not use it."""
    quota = seen["limits"].get("quota")
    total = seen["total"]
    if not quota or quota["stopped_ratio"] < STOPPED_RATIO:
        return []
    is_felt = total["lag_seconds"] >= LAGGING_SECONDS or total["shed_rate"] >= 0.5
    if not is_felt and quota["stopped_ratio"] < MOSTLY_STOPPED_RATIO:
        return []
    away = f"; {total['shed_rate']:.3g} requests/s are turned away" if total["shed_rate"] >= 0.5 else ""
    return [
        finding(
            BAD if away or total["lag_seconds"] >= 5 * LAGGING_SECONDS else WATCH,
            f"The CPU quota of {quota['cores']:.3g} cores stops the workers in {quota['stopped_ratio']:.0%} of its "
            f"periods: what is ready waits {duration(total['lag_seconds'])}{away}.",
            "Raise the quota (docker --cpus, limits.cpu of Kubernetes, CPUQuota= of systemd), or make the busiest "
            "routes cheaper (see cpu below). More workers would only be stopped more often: one for each whole core.",
            cause="throttled",
            quota=quota,
        )
    ]


def _explains(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the first does most of it."""
    total = sum(row["bytes"] * row["count"] for row in rows)
    return bool(rows[0]["bytes"] * rows[0]["count"] > 0.5 * total)
