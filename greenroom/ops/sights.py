"""Errors, upstreams, databases, locks, executors and clients, added up over all workers."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .collect import Moment, Seen

MOST_ROWS = 50
MOST_LINES = 3
# Numbers of an upstream that are not statuses.
CONNECT_FAILURES = ("refused", "timed_out", "failed")


def answered(moment: Moment) -> list[tuple[Seen, dict[str, Any]]]:
    """The workers that have said something, with what they said last."""
    return [(seen, seen.snapshot) for seen in moment.workers if seen.snapshot is not None and not seen.is_gone]


def grown(moment: Moment, kind: str, name: str, number: str) -> float:
    """By how much a counter of this name has grown in the window."""
    now, before = moment.sums[kind].get(name, {}), moment.before[kind].get(name, {})
    return float(max(0, now.get(number, 0) - before.get(number, 0)))


def rows_of(moment: Moment, name: str) -> Iterable[dict[str, Any]]:
    """The rows of a list that all workers have, each with its worker's number."""
    for seen, said in answered(moment):
        for row in said.get(name) or []:
            yield {**row, "worker": seen.number}


def merged(
    rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], Any], add: Callable[[Any, Any], Any]
) -> list[dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        name = key(row)
        found[name] = add(found[name], row) if name in found else row
    return list(found.values())


def failures(moment: Moment) -> list[dict[str, Any]]:
    """Exceptions by class, line and route; `recent` is how many of this class and route came in the window."""
    rows = merged(rows_of(moment, "failures"), lambda row: (row["name"], row["line"], row["route"]), _add_failures)
    for row in rows:
        row["recent"] = grown(moment, "failed", f"{row['name']} {row['route']}", "count")
        row["ago_seconds"] = max(0.0, moment.now - row["last_since"])
    return sorted(rows, key=lambda row: (-row["recent"], row["ago_seconds"]))[:MOST_ROWS]


def _add_failures(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    newer = max(one, other, key=lambda row: row["last_since"])
    return {
        **newer,
        "count": one["count"] + other["count"],
        "first_at": min(one["first_at"], other["first_at"]),
    }


def lines_of(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines that wait for the same thing, all workers together, the most first."""
    found = merged(
        (dict(line) for row in rows for line in row.get("lines") or []),
        lambda line: (line["line"], line["route"], line["library"]),
        lambda one, other: {**one, "count": one["count"] + other["count"]},
    )
    return sorted(found, key=lambda line: -line["count"])[:MOST_LINES]


def upstreams(moment: Moment, waits: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each host: how long it takes, what it answers, connections that fail, who waits for it and where."""
    waiting = {row["detail"]: row for row in waits if row["state"] == "upstream" and row["detail"]}
    rows = []
    for host in {**moment.sums["upstreams"], **waiting}:
        now, before = moment.sums["upstreams"].get(host, {}), moment.before["upstreams"].get(host, {})
        numbers = {name: max(0, now[name] - before.get(name, 0)) for name in now}
        waited, seconds = numbers.get("waits", 0), numbers.get("seconds", 0.0)
        requests = numbers.get("requests", 0)
        row = waiting.get(host, {})
        statuses = {
            name.removeprefix("status_"): int(count)
            for name, count in numbers.items()
            if name.startswith("status_") and count
        }
        rows.append(
            {
                "host": host,
                "rate": waited / moment.window_seconds if moment.window_seconds > 0 else 0.0,
                "seconds": seconds / waited if waited > 0 else None,
                "usual_seconds": now["seconds"] / now["waits"] if now.get("waits") else None,
                "waiting": row.get("count", 0),
                "longest_seconds": row.get("longest_seconds", 0.0),
                "lines": row.get("lines", []),
                "bad_lines": bad_lines(moment, host),
                "statuses": statuses,
                "answers": sum(statuses.values()),
                "bad_answers": sum(count for status, count in statuses.items() if status[:1] == "5" or status == "429"),
                "calls_per_request": numbers.get("calls", 0) / requests if requests else None,
                **{name: int(numbers.get(name, 0)) for name in CONNECT_FAILURES},
            }
        )
    return sorted(rows, key=lambda row: (-row["waiting"], -_failed(row), -row["rate"], row["host"]))[:MOST_ROWS]


def bad_lines(moment: Moment, host: str) -> list[dict[str, Any]]:
    """The lines that got bad answers of this host, or no connection."""
    return lines_of({"lines": (said.get("bad_callers") or {}).get(host)} for _, said in answered(moment))


def _failed(row: Mapping[str, Any]) -> int:
    return int(row["bad_answers"]) + sum(int(row[name]) for name in CONNECT_FAILURES)


def databases(moment: Moment) -> list[dict[str, Any]]:
    """Each database: when it was last heard, by any worker; connections that failed in the window."""
    found: dict[str, dict[str, Any]] = {}
    for seen, said in answered(moment):
        for name, row in (said.get("databases") or {}).items():
            one = found.setdefault(name, {"name": name, "heard_seconds": None, "failed_seconds": None, "words": ""})
            for key in ("heard_seconds", "failed_seconds"):
                if row.get(key) is not None:
                    age = row[key] + seen.unanswered_seconds
                    one[key] = age if one[key] is None else min(one[key], age)
            one["words"] = row.get("last_failure") or one["words"]
    for name, one in found.items():
        for number in ("refused", "timed_out", "full", "failed"):
            one[number] = int(grown(moment, "databases", name, number))
        one["bad_lines"] = bad_lines(moment, name)
    return list(found.values())


def groups(moment: Moment) -> list[dict[str, Any]]:
    """Requests in flight by route and what they do: hundreds become a few rows; with the line that waits, if known."""
    rows = merged(
        (
            {
                **{name: row.get(name, "") for name in ("route", "state", "detail")},
                "count": 1,
                "oldest_seconds": row.get("age_seconds", 0.0),
            }
            for row in rows_of(moment, "in_flight")
        ),
        lambda row: (row["route"], row["state"], row["detail"]),
        lambda one, other: {
            **one,
            "count": one["count"] + 1,
            "oldest_seconds": max(one["oldest_seconds"], other["oldest_seconds"]),
        },
    )
    lines = {
        (line["route"], wait["state"], wait["detail"]): line["line"]
        for wait in rows_of(moment, "waiting")
        for line in wait.get("lines") or []
    }
    for row in rows:
        row["line"] = lines.get((row["route"], row["state"], row["detail"]), "")
    return sorted(rows, key=lambda row: (-row["count"], -row["oldest_seconds"]))


def beside(moment: Moment) -> list[dict[str, Any]]:
    """Lines that compute in greenlets of no request, with their share of the worker's time; the largest first."""
    return sorted(rows_of(moment, "beside"), key=lambda row: -row["share"])


def holders(moment: Moment) -> list[dict[str, Any]]:
    """Locks that requests queue for, the most first; not those that one waits for and nobody holds, as futures do."""
    rows = [row for row in rows_of(moment, "holders") if row.get("taken_at") or row.get("kind") or row["count"] > 1]
    return sorted(rows, key=lambda row: -row["count"])


def queries(moment: Moment) -> list[dict[str, Any]]:
    """Lines that ask the database again and again within one request; `recent` requests did so in the window."""
    rows = merged(rows_of(moment, "repeated"), lambda row: (row["line"], row["route"]), _add_repeated)
    for row in rows:
        row["per_request"] = queries_of(moment, row["route"])
    return sorted(rows, key=lambda row: -row["count"])[:MOST_ROWS]


def queries_of(moment: Moment, route: str) -> float | None:
    """How often a request of this route asked its database, in the window."""
    requests = grown(moment, "queries", route, "requests")
    return grown(moment, "queries", route, "queries") / requests if requests else None


def _add_repeated(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        **one,
        **{name: one[name] + other[name] for name in ("requests", "count", "seconds")},
        "most": max(one["most"], other["most"]),
    }


def clients(moment: Moment) -> dict[str, Any]:
    """The heaviest clients and their shares of the requests that came lately."""
    counts: dict[str, float] = {}
    total = 0.0
    for _, said in answered(moment):
        row = said.get("clients") or {}
        total += row.get("total", 0.0)
        for one in row.get("top", []):
            counts[one["client"]] = counts.get(one["client"], 0.0) + one["count"]
    top = sorted(counts.items(), key=lambda item: -item[1])[:5]
    known = max(((said.get("clients") or {}).get("known", 0) for _, said in answered(moment)), default=0)
    return {
        "total": total,
        "known": known,
        "top": [{"client": name, "share": count / total if total else 0.0} for name, count in top],
    }


def growing_routes(moment: Moment) -> list[dict[str, Any]]:
    """Routes whose requests make the process grow, those that did most first."""
    rows = merged(
        rows_of(moment, "growth"),
        lambda row: row["route"],
        lambda one, other: {
            **one,
            "count": one["count"] + other["count"],
            "bytes": (one["bytes"] * one["count"] + other["bytes"] * other["count"])
            / max(1, one["count"] + other["count"]),
        },
    )
    return sorted(rows, key=lambda row: -row["bytes"] * row["count"])[:MOST_ROWS]


def garbage(moment: Moment) -> dict[str, float]:
    now, before = moment.sums["garbage"], moment.before["garbage"]
    numbers = {name: max(0.0, now.get(name, 0) - before.get(name, 0)) for name in ("count", "seconds")}
    longest = max(((said.get("garbage") or {}).get("longest_seconds", 0.0) for _, said in answered(moment)), default=0)
    return {**numbers, "longest_seconds": longest, "window_seconds": moment.window_seconds}
