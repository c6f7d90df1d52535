"""Parts of a snapshot: whom requests wait for, and what upstreams and databases answered."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .. import redaction
from ..waits import peers
from .observer import Insight

MOST_WAITING = 50
MOST_DETAILS = 1000
MOST_LINES = 3
Answer = TypeVar("Answer")


def upstreams(insight: Insight) -> dict[str, dict[str, float]]:
    """Return for each upstream: seconds waited, answers by kind, and connections that failed."""
    found: dict[str, dict[str, float]] = {
        name: {"waits": host[0], "seconds": host[1]} for name, host in again(lambda: list(insight.routes.hosts.items()))
    }
    for name, peer in again(lambda: list(peers.peers.items())):
        if not peer.is_database and peer.numbers:
            found.setdefault(name, {"waits": 0, "seconds": 0.0}).update(again(lambda: dict(peer.numbers)))  # noqa: B023
    return found


def databases(now: float) -> dict[str, dict[str, Any]]:
    return {
        name: {
            **dict.fromkeys(("refused", "timed_out", "full", "failed"), 0),
            **peer.numbers,
            "heard_seconds": now - peer.heard_at if peer.heard_at else None,
            "failed_seconds": now - peer.failed_at if peer.failed_at else None,
            "lines": lines_of(peer),
            "last_failure": redaction.message(peer.last_failure),
        }
        for name, peer in again(lambda: list(peers.peers.items()))
        if peer.is_database
    }


def lines_of(peer: peers.Peer) -> list[dict[str, Any]]:
    """The application's lines that got bad answers or no connection, the most first."""
    rows = again(lambda: list(peer.lines.items()))
    return [
        {
            "line": line,
            "route": route,
            "library": library,
            "count": count,
        }
        for (line, route, library), count in sorted(rows, key=lambda row: -row[1])[:MOST_LINES]
    ]


def bad_callers() -> dict[str, list[dict[str, Any]]]:
    return {name: lines_of(peer) for name, peer in again(lambda: list(peers.peers.items())) if peer.lines}


def waiting_for(waits: Iterable[tuple[str, str, float]]) -> list[dict[str, Any]]:
    """`waiting` of a snapshot, from (state, detail, seconds) of each request that waits."""
    plain: dict[tuple[str, str], list[float]] = {}
    for state, detail, seconds in waits:
        known = detail if (state, detail) in plain or len(plain) < MOST_DETAILS else ""
        plain.setdefault((state, known), []).append(max(0.0, seconds))
    found: dict[tuple[str, str], list[float]] = {}
    for (state, detail), seconds_of in plain.items():
        found.setdefault((state, redaction.detail(state, detail)), []).extend(seconds_of)
    most = sorted(found, key=lambda key: -len(found[key]))
    for state, detail in [key for key in most[MOST_WAITING:] if key[1]]:
        found.setdefault((state, ""), []).extend(found.pop((state, detail)))
    return [
        {
            "state": state,
            "detail": detail,
            "count": len(seconds_of),
            "middle_seconds": sorted(seconds_of)[len(seconds_of) // 2],
            "longest_seconds": max(seconds_of),
        }
        for (state, detail), seconds_of in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def again(read: Callable[[], Answer]) -> Answer:
    """`read()`, which goes through what another thread may change at the same time: then once more, some times."""
    for _ in range(20):
        try:
            return read()
        except RuntimeError:  # changed size during iteration
            continue
    return read()
