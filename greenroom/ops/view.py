"""One moment as the page, the terminal and a ticket show it: one dict that JSON can carry.

Nothing here is markup, and nothing is secret: routes are patterns, paths come without queries, queries without values.
All text from outside is bounded and has no control characters; code that shows it must still escape it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..worker.balance import State
from . import saturation, sights
from .collect import Moment, Seen, lag_seconds
from .counters import add_lists
from .latency import grown, latency, less, percentile
from .shapes import RouteRow, Stalls, Total, View, WorkerRow
from .sights import answered
from .together import MOST_ROWS, counted, pools, rate, waited_for
from .verdicts import findings

MOST_IN_FLIGHT = 200
LONGEST_TEXT = 300
LONGEST_STACK = 60
HISTORY_NAMES = ("requests", "shed", "errors", "in_flight", "lag_seconds", "cpu_ratio")
# A worker that did not answer for this long is shown as what the scoreboard knows.
STALE_SECONDS = 2.5


def view(moment: Moment, about: Mapping[str, Any], recordings: Sequence[Mapping[str, Any]] = ()) -> View:
    routes = _routes(moment)
    waits = waited_for(moment)
    seen: View = {
        "at": moment.at,
        "now": moment.now,
        "about": dict(about),
        "states": moment.sums["states"],
        "total": _total(moment, routes),
        "saturation": saturation.bars(moment),
        "history": {name: [round(point.get(name, 0.0), 4) for point in moment.history] for name in HISTORY_NAMES},
        "routes": routes[:MOST_ROWS],
        "workers": [_worker(moment, worker) for worker in moment.workers],
        "pools": pools(moment),
        "upstreams": sights.upstreams(moment, waits),
        "databases": sights.databases(moment),
        "failures": sights.failures(moment),
        "queries": sights.queries(moment),
        "holders": sights.holders(moment)[:MOST_ROWS],
        "beside": sights.beside(moment)[:MOST_ROWS],
        "executors": sorted(sights.rows_of(moment, "executors"), key=lambda row: -row["queued"])[:MOST_ROWS],
        "clients": sights.clients(moment),
        "growing": sights.growing_routes(moment),
        "garbage": sights.garbage(moment),
        "limits": dict(moment.limits),
        "leaks": moment.leaks,
        "reload": {
            "at": None if moment.reload.get("refused") else moment.reload.get("at"),
            "failures": [dict(row) for row in moment.boot_failures],
        },
        "stalls": _stalls(moment),
        "held": _held(moment),
        "deadlocks": deadlocks(moment),
        "in_flight": in_flight(moment)[:MOST_IN_FLIGHT],
        "in_flight_groups": sights.groups(moment)[:MOST_ROWS],
        "in_flight_states": counted(moment, "in_flight_states"),
        "in_flight_routes": counted(moment, "in_flight_routes"),
        "waits": waits,
        "events": [{**event, "ago_seconds": moment.now - event["since"]} for event in reversed(moment.events)],
        "recordings": [dict(row) for row in recordings],
    }
    found = findings(moment, seen)
    verdict: Any = {**found[0], "at": moment.at, "others": found[1:]}
    seen["verdict"] = verdict
    cleaned: View = clean(seen)
    return cleaned


def clean(value: Any) -> Any:
    """Text bounded and without control characters, numbers that JSON knows."""
    if isinstance(value, str):
        return "".join(
            letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value[:LONGEST_TEXT]
        )
    if isinstance(value, float):
        return round(value, 6) if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def _total(moment: Moment, routes: list[RouteRow]) -> Total:
    serving = [seen for seen in moment.workers if seen.state in (State.SERVING, State.RETIRING) and not seen.is_gone]
    requests, errors, expired = (rate(moment, name) for name in ("requests", "errors", "expired"))
    return {
        "requests_rate": requests,
        "goodput_rate": max(0.0, requests - errors),
        "shed_rate": rate(moment, "shed"),
        "error_rate": errors,
        "expired_rate": expired,
        "in_flight": sum(seen.in_flight for seen in moment.workers),
        "in_flight_untold": sum(_untold(seen) for seen in moment.workers),
        "queued": sum((said.get("worker") or {}).get("queued", 0) for _, said in answered(moment)),
        "connections": sum(seen.line["connections"] for seen in moment.workers),
        "finished_count": sum(route["recent"] for route in routes),
        "failed_count": sum(route["errors"] for route in routes),
        "lag_seconds": max((lag_seconds(seen) for seen in moment.workers), default=0.0),
        "workers_serving": len(serving),
        "workers_blocked": sum(seen.is_blocked for seen in serving),
        "workers": len(moment.workers),
        "workers_started": moment.totals["workers_started"],
        "workers_ended": moment.totals["workers_ended"],
        "workers_died": moment.totals["workers_died"],
        "requests": moment.totals["requests"],
        "shed": moment.totals["shed"],
        "rss_bytes": sum(seen.line["rss_bytes"] for seen in moment.workers),
        **latency(*_all_routes(moment), moment.sums["le"]),
    }


def _untold(seen: Seen) -> int:
    """Requests in a worker that is blocked and does not answer: how many is known, and not which."""
    if not seen.is_blocked or seen.unanswered_seconds < seen.silent_seconds:
        return 0
    told: dict[str, int] = (seen.snapshot or {}).get("in_flight_states") or {}
    return max(0, seen.in_flight - sum(told.values()))


def _all_routes(moment: Moment) -> tuple[list[float], dict[str, list[float]]]:
    buckets: list[float] = []
    bands: dict[str, list[float]] = {}
    for name, now in moment.sums["routes"].items():
        grown_buckets, grown_bands = grown(now, moment.before["routes"].get(name, {}))
        buckets = add_lists(buckets, grown_buckets)
        for index, seconds in grown_bands.items():
            bands[index] = add_lists(bands.get(index, []), seconds)
    return buckets, bands


def _routes(moment: Moment) -> list[RouteRow]:
    rows: list[RouteRow] = []
    for name, now in moment.sums["routes"].items():
        before = moment.before["routes"].get(name, {})
        count = now.get("count", 0) - before.get("count", 0)
        buckets, bands = grown(now, before)
        seconds = less(now.get("seconds", []), before.get("seconds", []))
        rows.append(
            {
                "route": name,
                "count": now.get("count", 0),
                "rate": count / moment.window_seconds if moment.window_seconds > 0 else 0.0,
                "errors": now.get("statuses", {}).get("5xx", 0) - before.get("statuses", {}).get("5xx", 0),
                "refused": now.get("statuses", {}).get("4xx", 0) - before.get("statuses", {}).get("4xx", 0),
                "cut": now.get("cut", 0) - before.get("cut", 0),
                "recent": count,
                "queries": sights.queries_of(moment, name),
                "usual": moment.usual.of(name),
                "seconds": [part / count for part in seconds] if count > 0 else [],
                **latency(buckets, bands, moment.sums["le"]),
            }
        )
    return sorted(rows, key=lambda row: (-row["rate"] * (row["p95"] or 0.0), -row["count"]))


def _worker(moment: Moment, seen: Seen) -> WorkerRow:
    said = seen.snapshot or {}
    worker = said.get("worker") or {}
    age = moment.now - seen.first_seen_at
    return {
        "number": seen.number,
        "pid": seen.pid,
        "state": "gone" if seen.is_gone else "stopped" if seen.is_stopped else seen.state.name.lower(),
        "in_flight": seen.in_flight,
        "queued": worker.get("queued", 0),
        "limit_requests": worker.get("limit_requests", 0),
        "load_ratio": worker["load"] / worker["load_limit"] if worker.get("load_limit") else None,
        "connections": seen.line["connections"],
        "requests": seen.line["requests"],
        "requests_rate": seen.rate("requests"),
        "goodput_rate": max(0.0, seen.rate("requests") - seen.rate("errors")),
        "shed_rate": seen.rate("shed"),
        "p95": percentile(less(seen.buckets[-1], seen.buckets[0]), said.get("le") or [], 0.95)[1]
        if len(seen.buckets) > 1
        else None,
        "stalls": (said.get("stalls") or {}).get("total", 0),
        "lag_seconds": lag_seconds(seen),
        "cpu_ratio": seen.cpu_ratio,
        "rss_bytes": seen.line["rss_bytes"],
        "age_seconds": said.get("age_seconds", age),
        "greenlets": (said.get("greenlets") or {}).get("count", 0),
        "unanswered_seconds": seen.unanswered_seconds,
        "is_stale": seen.unanswered_seconds > STALE_SECONDS,
        "stall": seen.peeked or (said.get("stalls") or {}).get("current"),
        "booting": (said.get("booting") or [])[:LONGEST_STACK],
    }


def _stalls(moment: Moment) -> Stalls:
    last = [
        {**stall, "worker": seen.number, "ago_seconds": moment.now - stall["since"]}
        for seen, said in answered(moment)
        for stall in (said.get("stalls") or {}).get("last", [])
    ]
    return {
        "total": moment.sums["stalls"].get("total", 0),
        "seconds": moment.sums["stalls"].get("seconds", 0.0),
        "top": sorted(moment.sums["lines"].values(), key=lambda row: -row["seconds"])[:20],
        "now": sorted(
            (
                {"worker": seen.number, "line": "", "route": "", **seen.current_stall(), "seconds": seen.silent_seconds}
                for seen in moment.workers
                if seen.is_blocked and not seen.is_gone and not seen.is_stopped
            ),
            key=lambda stall: -stall["seconds"],
        )[:20],
        "last": sorted(last, key=lambda stall: stall["ago_seconds"])[:20],
    }


def _held(moment: Moment) -> list[dict[str, Any]]:
    """Connections held during another wait; `recent` is how often lately."""
    before = moment.before["held"]
    rows = [
        {**row, "recent": row["count"] - before.get(name, {}).get("count", 0)}
        for name, row in moment.sums["held"].items()
    ]
    return sorted(rows, key=lambda row: (-row["recent"], -row["seconds"]))[:20]


def deadlocks(moment: Moment) -> list[dict[str, Any]]:
    return [
        {**deadlock, "worker": seen.number}
        for seen, said in answered(moment)
        for deadlock in (said.get("locks") or {}).get("deadlocks", [])
    ]


def in_flight(moment: Moment) -> list[dict[str, Any]]:
    """The longest first. Of a worker that does not answer: as it was when it did, and older by now."""
    rows = [
        {
            **request,
            "worker": seen.number,
            "pid": seen.pid,
            "is_stale": seen.unanswered_seconds > STALE_SECONDS,
            "age_seconds": request.get("age_seconds", 0.0) + seen.unanswered_seconds,
        }
        for seen, said in answered(moment)
        for request in said.get("in_flight") or []
    ]
    return sorted(rows, key=lambda row: -row["age_seconds"])
