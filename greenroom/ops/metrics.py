"""The view for Prometheus: OpenMetrics text.

Counters come from the scoreboard and from `counters`, so they never fall. Labels are bounded: route
patterns, upstream hosts and lines are as many as `counters` keeps names for, workers are numbered from 1.
Format: https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .. import __version__
from ..worker.balance import State
from . import metrics_of_causes as causes
from .collect import Moment, lag_seconds
from .counters import difference
from .openmetrics import CONTENT_TYPE, counter, gauge, histogram, info
from .sights import answered
from .together import pools, rate

__all__ = ["CONTENT_TYPE", "exposition"]

STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
STATE_NAMES = tuple(state.name.lower() for state in State if state != State.EMPTY)


def exposition(moment: Moment, verdict: Mapping[str, Any] | None = None) -> str:
    return "".join(line + "\n" for family in families(moment, verdict) for line in family) + "# EOF\n"


def families(moment: Moment, verdict: Mapping[str, Any] | None = None) -> Iterator[list[str]]:
    """Each metric family as its lines."""
    yield from causes.verdicts(verdict or {})
    totals = moment.totals
    yield info("greenroom", "Which Greenroom this is.", {"version": __version__})
    for name, about in (
        ("requests", "Requests that were admitted."),
        ("shed", "Requests that were not run: turned away with 503, or their clients left the line."),
        ("errors", "Requests answered with a status of 500 or more."),
        ("expired", "Requests whose time budget was spent."),
        ("accepted", "Connections accepted."),
        ("stalls", "Times that a loop did not turn for longer than the threshold."),
    ):
        full = {"accepted": "connections_accepted", "shed": "requests_shed"}.get(name, name)
        full = {"errors": "requests_failed", "expired": "requests_expired"}.get(name, full)
        # Of the stall in which a worker was killed its scoreboard line knows nothing.
        unfinished = moment.sums["stalls"].get("killed", 0) if name == "stalls" else 0
        yield counter(f"greenroom_{full}", about, [({}, totals[name] + unfinished)])
    for name, about in (
        ("workers_started", "Workers that were started."),
        ("workers_ended", "Workers that are gone."),
        ("workers_died", "Workers that are gone and did not drain first."),
    ):
        yield counter(f"greenroom_{name}", about, [({}, totals[name])])
    yield from _worker_gauges(moment)
    yield from _routes(moment)
    yield from _upstreams_and_pools(moment)
    yield from _stalls(moment)
    yield from _held(moment)
    yield from causes.families(moment)


def _worker_gauges(moment: Moment) -> Iterator[list[str]]:
    workers = [seen for seen in moment.workers if not seen.is_gone]
    counts = {name: sum(seen.state.name.lower() == name for seen in workers) for name in STATE_NAMES}
    yield gauge("greenroom_workers", "Workers by what they do.", [({"state": name}, counts[name]) for name in counts])
    for name, about, unit, value in (
        ("in_flight_requests", "Requests admitted and not answered.", "", lambda seen: seen.in_flight),
        ("connections", "Open connections, idle ones included.", "", lambda seen: seen.line["connections"]),
        ("lag_seconds", "How late the loop is.", "seconds", lag_seconds),
        ("memory_bytes", "Resident memory.", "bytes", lambda seen: seen.line["rss_bytes"]),
        ("cpu_ratio", "Share of one core that the process uses.", "ratio", lambda seen: seen.cpu_ratio),
    ):
        samples = {str(seen.number): float(value(seen)) for seen in workers}
        yield gauge(f"greenroom_{name}", about, [({"worker": key}, samples[key]) for key in samples], unit)
    yield gauge(
        "greenroom_busy_ratio",
        "Share of what this server can do that it does: of its cores, its loops, its limit. 1 is full: scale on it.",
        [({}, busy_ratio(moment))],
        "ratio",
    )
    queued = {str(seen.number): (said.get("worker") or {}).get("queued", 0) for seen, said in answered(moment)}
    yield gauge("greenroom_queued_requests", "Requests in line.", [({"worker": key}, queued[key]) for key in queued])
    for name, about in (
        ("left_requests", "Of the requests that were not run, those whose clients left the line."),
        ("empty_turns", "Turns of the loop in which nothing was done."),
        ("connections_given_away", "Connections closed after an answer, so that their clients go to other workers."),
    ):
        counts = {str(seen.number): (said.get("worker") or {}).get(name, 0) for seen, said in answered(moment)}
        # Of the worker that runs now: no counter, which would have to outlive it.
        yield gauge(
            f"greenroom_{name}",
            f"Since the worker's start: {about}",
            [({"worker": key}, counts[key]) for key in counts],
        )


def busy_ratio(moment: Moment) -> float:
    """The fullest of: the cores of the workers that serve, on average; their loops; their limit of requests.

    The loops count time that other programs took, too: who is late for want of a CPU is full whoever uses it. Whoever
    turns requests away is full.
    """
    serving = [one for one in moment.workers if one.state in (State.SERVING, State.RETIRING) and not one.is_gone]
    if not serving:
        return 0.0
    if rate(moment, "shed") > 0.0:
        return 1.0
    cpu = sum(1.0 if one.is_blocked else min(1.0, one.cpu_ratio) for one in serving) / len(serving)
    grown = difference(moment.sums["loop"], moment.before["loop"])
    busy, idle = grown.get("busy_seconds", 0.0), grown.get("idle_seconds", 0.0)
    loops = busy / (busy + idle) if busy + idle else 0.0
    said = [one.get("worker") or {} for _, one in answered(moment)]
    limit, running = (sum(one.get(name, 0) for one in said) for name in ("limit_requests", "in_flight"))
    return max(cpu, loops, min(1.0, running / limit) if limit else 0.0)


def _routes(moment: Moment) -> Iterator[list[str]]:
    states, routes = moment.sums["states"], moment.sums["routes"]
    yield counter(
        "greenroom_route_requests",
        "Finished requests by route pattern and class of status.",
        [
            ({"route": route, "status": status}, row["statuses"].get(status, 0))
            for route, row in routes.items()
            for status in STATUSES
            if status in row.get("statuses", {})
        ],
    )
    yield counter(
        "greenroom_route_seconds",
        "Time of finished requests by route pattern and where it went.",
        [
            ({"route": route, "state": state}, seconds)
            for route, row in routes.items()
            for state, seconds in zip(states, row.get("seconds", []), strict=False)
        ],
        "seconds",
    )
    yield histogram(
        "greenroom_request_duration_seconds",
        "How long requests took, by route pattern.",
        [({"route": route}, row.get("buckets", []), row.get("total_seconds", 0.0)) for route, row in routes.items()],
        moment.sums["le"],
        "seconds",
    )


def _upstreams_and_pools(moment: Moment) -> Iterator[list[str]]:
    upstreams = moment.sums["upstreams"]
    yield counter(
        "greenroom_upstream_waits",
        "Waits for an upstream, by host.",
        [({"host": host}, row.get("waits", 0)) for host, row in upstreams.items()],
    )
    yield counter(
        "greenroom_upstream_seconds",
        "Time waited for an upstream, by host.",
        [({"host": host}, row.get("seconds", 0)) for host, row in upstreams.items()],
        "seconds",
    )
    found = pools(moment)
    for name, key, about in (
        ("size_connections", "size", "Connections that the pools may open."),
        ("in_use_connections", "in_use", "Connections in use."),
        ("waiting_requests", "waiting", "Requests that wait for a connection."),
    ):
        yield gauge(
            f"greenroom_pool_{name}",
            about,
            [({"kind": pool["kind"], "pool": pool["name"]}, pool[key]) for pool in found],
        )


def _stalls(moment: Moment) -> Iterator[list[str]]:
    yield counter(
        "greenroom_stall_seconds",
        "Time in which a loop did not turn.",
        [({}, moment.sums["stalls"].get("seconds", 0.0))],
        "seconds",
    )
    yield counter(
        "greenroom_line_stalls",
        "Stalls by the line that caused them.",
        [({"line": line}, row.get("count", 0)) for line, row in moment.sums["lines"].items()],
    )


def _held(moment: Moment) -> Iterator[list[str]]:
    held = moment.sums["held"]
    yield counter(
        "greenroom_held_connections",
        "Times that a database connection was held during an upstream wait, by the lines.",
        [({"lines": name}, row.get("count", 0)) for name, row in held.items()],
    )
