"""Needless work of requests: many queries, more time than usual, answers that take very long."""

from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from ..shapes import RouteRow, Row, View
from .finding import FEWEST, WATCH, Finding, finding
from .peers import name_of
from .waiting import is_patient
from .words import count_of, duration, requests, window

MANY_QUERIES = 40
SLOWER_RATIO = 3.0
SLOWER_SECONDS = 0.1
FEWEST_USUAL = 20
LONG_SECONDS = 10.0
FEWEST_LEFT = 5
LEFT_SHARE = 0.3
FEWEST_REFUSED = 20
REFUSED_RATIO = 0.3
PATIENT = ("sleep", "client")


def many_queries(moment: Moment, seen: View) -> list[Finding]:
    for row in seen["queries"]:
        if (row["per_request"] or 0.0) < MANY_QUERIES or not _is_asked(row["route"], seen):
            continue
        each = row["count"] / max(1, row["requests"])
        line = f": {each:.0f} of them at {row['line']}" if row["line"] else f": {each:.0f} of them alike"
        statement = f" ({row['statement'][:80]})" if row["statement"] else ""
        return [
            finding(
                WATCH,
                f"Each request of {row['route']} asks the database {row['per_request']:.0f} times{line}{statement}.",
                "Ask once for all of them: a JOIN, selectinload() or joinedload() of SQLAlchemy's, WHERE id IN (...).",
                cause="many_queries",
                line=row["line"],
                route=row["route"],
            )
        ]
    return []


def _is_asked(route: str, seen: View) -> bool:
    return any(row["route"] == route and (row.get("recent") or 0) > 0 for row in seen["routes"])


def slower_than_usual(moment: Moment, seen: View) -> list[Finding]:
    """A route against its own last hour."""
    worst: tuple[float, RouteRow, Row] | None = None
    for row in seen["routes"]:
        usual = row.get("usual")
        if not usual or usual["count"] < FEWEST_USUAL or (row.get("recent") or 0) < FEWEST or not row["seconds"]:
            continue
        now = sum(row["seconds"])
        if now > SLOWER_RATIO * usual["seconds"] and now - usual["seconds"] > SLOWER_SECONDS:
            if _listens(row, _grown_most(row["seconds"], usual["by_state"], seen["states"]), seen):
                continue
            lost = (now - usual["seconds"]) * row["recent"]
            if worst is None or lost > worst[0]:
                worst = lost, row, usual
    if worst is None:
        return []
    _, row, usual = worst
    now = sum(row["seconds"])
    state = _grown_most(row["seconds"], usual["by_state"], seen["states"])
    lines = [line for wait in seen["waits"] if wait["state"] == state for line in wait.get("lines") or []]
    at = next((f" at {line['line']}" for line in lines if line["route"] == row["route"] and line["line"]), "")
    return [
        finding(
            WATCH,
            f"{row['route']} takes {duration(now)}, {now / usual['seconds']:.1f} times as long as usual "
            f"({duration(usual['seconds'])}, of {usual['count']:g} requests in the last "
            f"{duration(usual['span_seconds'])}); the time goes to {WORDS.get(state, state)}{at}.",
            "See what has changed: the code (a deploy), the data, or whom it asks.",
            cause="slower_than_usual",
            route=row["route"],
            state=state,
        )
    ]


WORDS = {
    "cpu": "computing",
    "ready": "waiting for its turn on a busy loop",
    "upstream": "an upstream",
    "query": "the database",
    "pool": "waiting for a connection of a pool",
    "lock": "a lock",
    "sleep": "sleeping",
    "offload": "offloaded work",
    "dns": "the name server",
    "client": "its clients",
    "other": "a wait that has no name here",
}


def _grown_most(now: list[float], usual: list[float], states: list[str]) -> str:
    by_state = list(usual) + [0.0] * (len(now) - len(usual))
    place = max(range(len(now)), key=lambda number: now[number] - by_state[number])
    return states[place] if place < len(states) else "other"


def takes_long(moment: Moment, seen: View) -> list[Finding]:
    """Answers that nobody waits for so long, streams and sleepers aside."""
    for row in seen["routes"]:
        count, p99 = row.get("recent") or 0, row.get("p99")
        if not count or p99 is None or p99 < LONG_SECONDS or sum(row["seconds"]) < 1.0:
            continue
        parts = dict(zip(seen["states"], row["p99_by_state"], strict=False))
        if not parts or sum(parts.get(name, 0.0) for name in PATIENT) > 0.5:
            continue
        state = max(parts, key=lambda name: parts[name])
        if _listens(row, state, seen):
            continue
        # The percentile lies somewhere in its bucket; only that bucket's lower bound is known to be true.
        at_least = max((bound for bound in moment.sums["le"] if bound is not None and bound <= p99), default=p99)
        host, line = _slow_upstream(row["route"], seen) if state == "upstream" else ("", "")
        do = f"See what it waits for{f' at {line}' if line else ''}; a budget for the route ends it in time."
        if host:
            do = (
                f"Ask who runs it. A timeout of the call bounds each read, and not the answer as a whole: a body that "
                f"comes in drips never meets it, a budget for the route does.{f' Called at {line}.' if line else ''}"
            )
        return [
            finding(
                WATCH,
                f"Requests of {row['route']} take longer than {duration(at_least)}; the time goes to "
                f"{host or WORDS.get(state, state)}.",
                do,
                cause="takes_long",
                route=row["route"],
            )
        ]
    return []


def refused_more(moment: Moment, seen: View) -> list[Finding]:
    """A route that answers with 4xx whom it served before."""
    rows = []
    for row in seen["routes"]:
        usual, count = row.get("usual"), row.get("recent") or 0
        if row["route"] == "other" or not usual or usual["count"] < FEWEST_USUAL or count < FEWEST_REFUSED:
            continue
        ratio, before = (row.get("refused") or 0) / count, usual.get("refused_ratio", 0.0)
        if ratio >= REFUSED_RATIO and ratio >= before + REFUSED_RATIO:
            rows.append((row["refused"], ratio, before, row["route"]))
    if not rows:
        return []
    _, ratio, before, route = max(rows)
    more = f"; and of {count_of(len(rows) - 1, 'other route')}" if len(rows) > 1 else ""
    return [
        finding(
            WATCH,
            f"{ratio:.0%} of the answers of {route} in the last {window(moment)} are 4xx{more}, {before:.0%} before.",
            "It refuses whom it served before; the access log says with which status. 401 or 403: a SECRET_KEY that "
            "has changed or is not the same in all workers and hosts, sessions or tokens that are gone; 404: data or a "
            "route that is gone; 400 or 422: a client that was changed.",
            cause="refused_more",
            route=route,
        )
    ]


def left_behind(moment: Moment, seen: View) -> list[Finding]:
    """Threads and child processes that requests start, and that do not end."""
    found = []
    for kind in ("threads", "children"):
        rows = [row for row in seen["leaks"] if row["kind"] == kind]
        if not rows:
            continue
        row = rows[0]
        every = [one for one in rows if one["name"] == row["name"]]
        count, more = sum(one["count"] for one in every), sum(one["grown"] for one in every)
        whose = f"worker {row['worker']}" if len(every) == 1 else count_of(len(every), "worker")
        told = f"{more} more in the last {duration(row['seconds'])}"
        if kind == "threads":
            words = f"Threads that are started at {row['name']} do not end: {count} of them live in {whose}, {told}."
            do = (
                "One for each request that waits for ever, or an executor for each that is not shut down: `with "
                "ThreadPoolExecutor()`, or one for all; a bounded queue for work that comes faster than it is done."
            )
        else:
            program = f" ({row['name']})" if row["name"] else ""
            words = f"Child processes{program} are started and not ended: {whose} has {count}, {told}."
            do = (
                "See which route starts them (ps --ppid PID): subprocess.run() with a timeout= waits for their end, "
                "Popen() alone does not. At the limit of processes (ulimit -u, pids.max) nothing can be started."
            )
        found.append(finding(WATCH, words, do, cause=f"{kind}_left", leak=row))
    return found


def given_up(moment: Moment, seen: View) -> list[Finding]:
    """Clients that hang up before their answer; most ask again, and add to what made them wait."""
    if seen["total"]["expired_rate"] * moment.window_seconds >= FEWEST:
        return []  # they have run out of our budget, which is told as that
    rows = [row for row in seen["routes"] if row["cut"] >= max(FEWEST_LEFT, LEFT_SHARE * (row.get("recent") or 0))]
    if not rows or not (row := max(rows, key=lambda row: row["cut"]))["seconds"]:
        return []
    parts = row["seconds"]
    state = seen["states"][max(range(len(parts)), key=lambda number: parts[number])]
    host, line = _slow_upstream(row["route"], seen) if state == "upstream" else ("", "")
    to = host or WORDS.get(state, state)
    return [
        finding(
            WATCH,
            f"{row['cut']:g} of {requests(row['recent'])} of {row['route']} in the last {window(moment)} are given up "
            f"by their clients, after {duration(sum(parts))} on average; the time goes to {to}.",
            "Their timeout is shorter than the route takes, and whoever asks again adds to the load: make the route "
            f"quicker, or give it a budget below that timeout.{f' Called at {line}.' if line else ''}",
            cause="given_up",
            route=row["route"],
        )
    ]


def _listens(route: Mapping[str, Any], state: str, seen: View) -> bool:
    """Whether the time goes to a word from others: no request of the route is seen to wait for a lock."""
    if state not in ("lock", "other"):
        return False
    rows = [row for row in seen["waits"] if row["state"] == state and not is_patient(row)]
    return not any(line["route"] == route["route"] for row in rows for line in row.get("lines") or [])


def _slow_upstream(route: str, seen: View) -> tuple[str, str]:
    """The upstream that requests of this route wait for, and the line; "" where that is not seen just now."""
    for one in sorted(seen["upstreams"], key=lambda one: -one["waiting"]):
        line = next((str(line["line"]) for line in one["lines"] if line["route"] == route and line["line"]), "")
        if line:
            return name_of(one["host"], one["lines"], other="upstream"), line
    # Lines are known of waits that last; each part of a body that drips in is a short one.
    waiting = [one for one in seen["upstreams"] if one["waiting"]]
    return (name_of(waiting[0]["host"], other="upstream"), "") if len(waiting) == 1 else ("", "")
