"""Locks: deadlocks, and locks that are held for long."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from ..shapes import View
from .finding import BAD, FEWEST, WATCH, Finding, finding
from .peers import callers, name_of
from .waiting import SHARE_OF_WAITING, concerned, is_slow
from .words import count_of, duration, own_line, requests

LONG_SECONDS = 1.0
SQLITE_SECONDS = 0.5
LEAK_SECONDS = 10.0


def deadlock(moment: Moment, seen: View) -> list[Finding]:
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


def held(moment: Moment, seen: View) -> list[Finding]:
    """A lock that many queue for: where it was taken, by which route, what its holder waits for meanwhile."""
    total = concerned(seen["in_flight_states"], seen["waits"])
    found = []
    for row in seen["holders"][:1]:
        total = max(total, row["count"])  # they were looked at a moment earlier
        if row["count"] < FEWEST or row["count"] < SHARE_OF_WAITING * total:
            continue
        if row["longest_seconds"] < LONG_SECONDS and not _lock_is_slow(seen):
            continue
        if row.get("kind") == "semaphore":
            found.append(_semaphore(row, requests(total), seen))
            continue
        if not row.get("taken_at"):
            continue
        line = row.get("wanted_at") or row["taken_at"]
        by = f" of {row['route']}" if row.get("route") not in (None, "", "other") else ""
        doing = _doing(row)
        name = row.get("name") or "it"
        name = f"it ({name})" if name.startswith("made at ") else name
        found.append(
            finding(
                BAD,
                f"The lock at {line} is the bottleneck: {row['count']:g} of {requests(total)} wait for it, the "
                f"longest for {duration(row['longest_seconds'])}; {name} was taken at {row['taken_at']}{by}{doing}.",
                f"Hold it for less: do what takes long{f' (at {at})' if (at := row.get('line')) else ''} before or "
                "after it. Requests behind it go one after the other, however many workers there are.",
                cause="lock_held",
                holder=row,
            )
        )
    return found


def _semaphore(row: Mapping[str, Any], total: str, seen: View) -> Finding:
    """It is first come, first served: in the time that the longest waits, nobody has given a place back."""
    longest = row["longest_seconds"]
    route = row.get("route") if row.get("route") not in (None, "", "other") else ""
    # Those that have a place are most likely of the same route, and past that line.
    rows = [one for one in seen["in_flight"] if route and one["route"] == route and one["state"] != "lock"]
    doing = Counter((one["state"], one["detail"]) for one in rows).most_common(1)
    busy = f"; others of {route} {_does(*doing[0][0])}" if doing else ""
    places = f"one of its {count_of(row['places'], 'place')}" if row.get("places") else "a place"
    is_leak = longest >= LEAK_SECONDS
    since = f", and in {duration(longest)} none was given back" if is_leak else ""
    do = "Do less while a place is held, above all no waiting for others; or give it more places."
    if is_leak:
        do = (
            "Does each acquire() have its release(), also after an exception or an early return? Take it using `with`, "
            "which gives the place back whatever happens; see also what those wait for that have one."
        )
    return finding(
        BAD,
        f"The semaphore at {row['wanted_at']}{f' ({route})' if route else ''} is the bottleneck: {row['count']:g} of "
        f"{total} wait for {places}, the longest for {duration(longest)}{since}{busy}"
        f"{f'; it is {name}' if (name := row.get('name')) else ''}.",
        do,
        cause="semaphore",
        holder=row,
    )


def _does(state: str, detail: str) -> str:
    words = {"upstream": "wait for upstream", "query": "wait for the database", "sleep": "sleep", "running": "compute"}
    return f"{words.get(state, f'wait ({state})')} {detail if state == 'upstream' else ''}".rstrip()


def _lock_is_slow(seen: View) -> bool:
    """Whether waits for locks are told as slow already: the cause is then told at once, and not the wait first."""
    return any(row["state"] == "lock" and is_slow(row) for row in seen["waits"])


def _doing(row: Mapping[str, Any]) -> str:
    state, detail, line = (row.get(name) or "" for name in ("state", "detail", "line"))
    at = f" at {line}" if line else ""
    if state == "upstream":
        lines = [{"library": row.get("library", "")}]
        name = name_of(detail, lines, other="upstream") if detail else "an upstream"
        return f", and its holder waits for {name}{at}"
    if state == "query":
        return f", and its holder waits for the database ({detail[:60]}){at}"
    words = {"sleep": "sleeps", "cpu": "computes", "pool": "waits for a connection of a pool"}
    if state in words:
        return f", and its holder {words[state]}{at}"
    return f", and its holder waits ({state} {detail}".rstrip() + f"){at}" if state else ""


def executor_full(moment: Moment, seen: View) -> list[Finding]:
    """An executor with more work than threads."""
    for row in seen["executors"]:
        if row["queued"] < FEWEST or row["queued"] < row["size"] / 2:
            continue
        waits = [one for one in seen["waits"] if one["state"] in ("lock", "upstream", "query", "sleep", "other")]
        longest = max((one["longest_seconds"] for one in waits), default=0.0)
        if longest < LONG_SECONDS and not _lock_is_slow(seen):
            continue
        lines = [line for one in waits if one["state"] == "lock" for line in one.get("lines") or []]
        asked = callers(lines, most=1)
        name = f" ({row['name']})" if row["name"] else ""
        return [
            finding(
                BAD,
                f"An executor of {count_of(row['size'], 'thread')}{name} is the bottleneck: {row['queued']} calls "
                f"queue "
                f"for it{f', asked for at {asked}' if asked else ''}{_executor_does(row)}.",
                "Raise its max_workers (here threads are greenlets, and cheap), or have the calls end sooner.",
                cause="executor",
                executor=row,
            )
        ]
    return []


def _executor_does(row: Mapping[str, Any]) -> str:
    at = f" at {row['line']}" if row["line"] else ""
    if row["state"] == "upstream" and row["detail"]:
        return f"; its threads wait for {row['detail']}{at}"
    return f"; its threads are busy{at} ({row['state']} {row['detail']}".rstrip() + ")" if at and row["state"] else ""


def sqlite_locked(moment: Moment, seen: View) -> list[Finding]:
    """SQLite has one writer at a time for each file, whichever worker it is in."""
    rows = [row for row in seen["waits"] if row["state"] == "lock" and row["detail"].startswith("sqlite ")]
    count = sum(row["count"] for row in rows)
    if not rows or max(row["longest_seconds"] for row in rows) < SQLITE_SECONDS:
        return []
    named = next((row for row in rows if ", in a transaction since " in row["detail"]), rows[0])
    name, _, holder = named["detail"].removeprefix("sqlite ").partition(", in a transaction since ")
    lines = [line for row in rows for line in row.get("lines") or []]
    asked = callers(lines)
    by = f"; a transaction is open since {holder}" if holder else "; another worker or process has it"
    return [
        finding(
            BAD if count >= FEWEST else WATCH,
            f"SQLite's writer lock of {name} is the bottleneck: {requests(count)} wait for it"
            f"{f' at {asked}' if asked else ''}, the longest for "
            f"{duration(max(row['longest_seconds'] for row in rows))}{by}.",
            "One transaction writes at a time: commit before you wait for anything else, keep transactions short "
            "(PRAGMA journal_mode=WAL lets readers go on), or move to PostgreSQL.",
            cause="sqlite_locked",
        )
    ]


def lock_words(lock: str, numbers: str) -> str:
    if not lock:
        return f"Locks or threads are the bottleneck: {numbers}."
    if lock in ("flock", "lockf"):
        return f"A file's lock ({lock}) is the bottleneck: {numbers}."
    return f"A {'thread' if lock.startswith('thread ') else 'lock'} is the bottleneck ({lock}): {numbers}."
