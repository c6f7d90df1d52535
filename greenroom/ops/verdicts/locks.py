"""Locks: deadlocks, and locks that are held for long."""

from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from .finding import BAD, Finding, finding
from .words import duration, own_line, requests


def deadlock(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    found = []
    for one in seen["deadlocks"]:
        sentence, do = DEADLOCKS[one.get("kind", "circle")](one)
        lines = [
            f"{who(member)} waits at {own_line(member['stack'])}"
            for member in (one.get("members") or [])[:3]
            if member.get("stack")
        ]
        found.append(finding(BAD, sentence, f"{do} {'; '.join(lines)}.", cause="deadlock", worker=one["worker"]))
    return found


def _circle(deadlock: Mapping[str, Any]) -> tuple[str, str]:
    members = deadlock.get("members") or []
    names = " and ".join(who(member) for member in members[:3])
    rest = deadlock.get("waiting", 0) - 3
    more = f" and {rest} more" if rest > 0 else ""
    return (
        f"Deadlock in worker {deadlock['worker']}: {names}{more} wait for each other's locks, {_since(deadlock)}.",
        "Take locks in the same order everywhere, or with a timeout.",
    )


def _self(deadlock: Mapping[str, Any]) -> tuple[str, str]:
    (member,) = deadlock["members"]
    return (
        f"Deadlock in worker {deadlock['worker']}: {who(member)} waits for a lock that it holds itself, "
        f"{_since(deadlock)}.",
        f"It took it at {member.get('taken_at')}: don't take a lock in a __del__ or a signal handler, or use an RLock.",
    )


def _orphan(deadlock: Mapping[str, Any]) -> tuple[str, str]:
    first = deadlock["members"][0]
    holder = first.get("waits_for_route") or first.get("waits_for") or "a thread"
    count = deadlock.get("waiting", 1)
    return (
        f"Worker {deadlock['worker']}: {requests(count)} wait{'s' if count == 1 else ''} for a lock that nobody will "
        f"release, {_since(deadlock)}: {holder} took it at {first.get('taken_at')} and ended.",
        "Release it whatever happens: take it using `with`.",
    )


DEADLOCKS = {"circle": _circle, "self": _self, "orphan": _orphan}


def _since(deadlock: Mapping[str, Any]) -> str:
    return f"for {duration(deadlock.get('since_seconds') or 0.0)}"


def who(member: Mapping[str, Any]) -> str:
    return str(member.get("route") or member.get("request") or "a thread")


def lock_words(lock: str, numbers: str) -> str:
    if not lock:
        return f"Locks or threads are the bottleneck: {numbers}."
    return f"A {'thread' if lock.startswith('thread ') else 'lock'} is the bottleneck ({lock}): {numbers}."
