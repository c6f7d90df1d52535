"""Metrics of what explains troubles: the verdict, exceptions, upstreams, queries, garbage, limits, clients.

Labels are bounded: classes of exceptions, routes, hosts and statuses are as many as `counters` keeps names for; causes
are those of the rules.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .collect import Moment
from .openmetrics import counter, gauge
from .sights import CONNECT_FAILURES, answered

MOST_STATUSES = 20


def verdicts(verdict: Mapping[str, Any]) -> Iterator[list[str]]:
    """1 for each cause that is there now, with its level."""
    found = [one for one in (verdict, *verdict.get("others", ())) if one.get("cause")]
    samples = {(str(one["cause"]), str(one["level"])): 1.0 for one in found}
    yield gauge(
        "greenroom_verdict",
        "What the page says now: 1 for each cause, with its level (ok, watch, bad).",
        [({"cause": cause, "level": level}, value) for (cause, level), value in samples.items()],
    )


def families(moment: Moment) -> Iterator[list[str]]:
    yield from _errors(moment)
    yield from _peers(moment)
    yield from _work(moment)
    yield from _limits(moment)
    yield from _clients(moment)


def _errors(moment: Moment) -> Iterator[list[str]]:
    yield counter(
        "greenroom_exceptions",
        "Exceptions that ended requests, by class and route.",
        [
            ({"class": str(row.get("class", "other")), "route": str(row.get("route", "other"))}, row.get("count", 0))
            for row in moment.sums["failed"].values()
        ],
    )


def _peers(moment: Moment) -> Iterator[list[str]]:
    upstreams = moment.sums["upstreams"]
    answers: dict[tuple[str, str], float] = {}
    for host, row in upstreams.items():
        statuses = [name for name in row if name.startswith("status_")]
        for name in statuses:
            status = name.removeprefix("status_") if len(statuses) <= MOST_STATUSES else "other"
            answers[host, status] = answers.get((host, status), 0) + row[name]
    yield counter(
        "greenroom_upstream_answers",
        "Answers of upstreams, by status.",
        [({"host": host, "status": status}, count) for (host, status), count in answers.items()],
    )
    yield counter(
        "greenroom_upstream_failed_connects",
        "Connections to upstreams and databases that came to nothing, by reason.",
        [
            ({"host": host, "reason": reason}, row[reason])
            for host, row in [*upstreams.items(), *moment.sums["databases"].items()]
            for reason in (*CONNECT_FAILURES, "full")
            if row.get(reason)
        ],
    )
    for name, about in (("requests", "Requests that asked this upstream."), ("calls", "Calls to this upstream.")):
        yield counter(
            f"greenroom_upstream_{name}",
            about,
            [({"host": host}, row[name]) for host, row in upstreams.items() if row.get(name)],
        )


def _work(moment: Moment) -> Iterator[list[str]]:
    for name, about in (
        ("requests", "Requests that asked a database, by route."),
        ("queries", "Queries of these requests, by route."),
    ):
        full = {"requests": "requests_with_queries"}.get(name, name)
        yield counter(
            f"greenroom_route_{full}",
            about,
            [({"route": route}, row.get(name, 0)) for route, row in moment.sums["queries"].items()],
        )
    garbage = moment.sums["garbage"]
    yield counter("greenroom_gc_collections", "Garbage collections.", [({}, garbage.get("count", 0))])
    yield counter(
        "greenroom_gc_seconds",
        "Time in which the garbage collector ran.",
        [({}, garbage.get("seconds", 0.0))],
        "seconds",
    )


def _limits(moment: Moment) -> Iterator[list[str]]:
    rows = moment.limits.get("descriptors") or []
    for name, about in (("used", "Open file descriptors."), ("limit", "How many it may have open.")):
        full = {"used": "open", "limit": "most"}[name]
        yield gauge(
            f"greenroom_descriptors_{full}", about, [({"worker": str(row["worker"])}, row[name]) for row in rows]
        )
    yield gauge(
        "greenroom_disk_free_bytes",
        "Free space of the disks that the server uses.",
        [({"path": row["path"]}, row["free_bytes"]) for row in moment.limits.get("disks") or []],
        "bytes",
    )
    memory = moment.limits.get("memory") or {}
    yield gauge(
        "greenroom_memory_available_bytes",
        "Memory that is left, of the machine or the control group.",
        [({}, memory["available_bytes"])] if memory else [],
        "bytes",
    )
    grown = moment.limits.get("growth") or {}
    yield gauge(
        "greenroom_memory_growth_bytes_per_second",
        "By how much the workers' memory grows steadily; 0 where it does not.",
        [({}, float(grown.get("bytes_per_second", 0.0)))],
    )


def _clients(moment: Moment) -> Iterator[list[str]]:
    waiting = sum(
        row["count"] for _, said in answered(moment) for row in said.get("waiting") or [] if row["state"] == "client"
    )
    yield gauge(
        "greenroom_requests_waiting_for_clients",
        "Requests that wait for their client to send or read.",
        [({}, waiting)],
    )
    yield counter(
        "greenroom_requests_shed_by_client",
        "Requests turned away, by class of client: forwarded by a trusted proxy, private, public, local (a socket).",
        [({"client": name}, count) for name, count in moment.sums["sheds"].items()],
    )
    yield counter(
        "greenroom_requests_refused",
        "Requests whose head could not be read, or was too large, by gunicorn's name for it.",
        [({"reason": name}, count) for name, count in moment.sums["refused"].items()],
    )
