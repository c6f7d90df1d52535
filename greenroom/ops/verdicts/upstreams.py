"""Upstreams that fail: bad answers, connections that come to nothing, answers that don't come, retries."""

from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from ..shapes import View
from ..sights import CONNECT_FAILURES
from .finding import BAD, FEWEST, WATCH, Finding, finding
from .peers import callers, name_of, routes
from .waiting import SHARE_OF_WAITING, concerned
from .words import duration, requests, window

BAD_SHARE = 0.1
# From this share of failed requests on an upstream's trouble is the server's.
FELT_SHARE = 0.05
SILENT_SECONDS = 3.0
MANY_CALLS = 1.8
CONNECT_WORDS = {
    "refused": "refuses connections",
    "timed_out": "lets nobody connect in time",
    "failed": "can't be reached",
}


def failing(moment: Moment, seen: View) -> list[Finding]:
    found = []
    total = concerned(seen["in_flight_states"], seen["waits"])
    for row in seen["upstreams"]:
        if row["host"] in seen["about"].get("bind", ()):
            continue  # this server itself: what its routes answer is told of them
        failures = sum(row[name] for name in CONNECT_FAILURES)
        if failures >= FEWEST:
            found.append(_unreachable(moment, seen, row, failures))
        elif row["bad_answers"] >= FEWEST and row["bad_answers"] >= BAD_SHARE * row["answers"]:
            found.append(_answers_badly(moment, seen, row))
        elif _is_silent(row, seen, moment):
            found.append(_silent(row, total))
    return found


def _level(moment: Moment, seen: View) -> str:
    """Bad where clients feel it; where the routes answer all the same, worth watching."""
    total = seen["total"]
    return BAD if total["failed_count"] >= max(1.0, FELT_SHARE * total["finished_count"]) else WATCH


def _called(row: Mapping[str, Any]) -> str:
    lines = [*row["bad_lines"], *row["lines"]]
    return f" Called at {called}." if (called := callers(lines)) else ""


def _retries(row: Mapping[str, Any]) -> str:
    calls = row["calls_per_request"]
    return f", {calls:.2g} calls for each request" if calls and calls >= MANY_CALLS else ""


def _unreachable(moment: Moment, seen: View, row: Mapping[str, Any], failures: int) -> Finding:
    worst = max(CONNECT_FAILURES, key=lambda name: row[name])
    rate = failures / moment.window_seconds if moment.window_seconds else 0.0
    needed = routes(row["bad_lines"])
    return finding(
        _level(moment, seen),
        f"{name_of(row['host'], [*row['lines'], *row['bad_lines']])} {CONNECT_WORDS[worst]}: {failures} failed in the "
        f"last {window(moment)} ({rate:.2g}/s{_retries(row)}){f'; {needed} need it' if needed else ''}.",
        f"See whether it runs, and whether its address is right.{_called(row)}"
        + (" Retry later, and with growing pauses: at once only adds to the storm." if _retries(row) else ""),
        cause="upstream_refuses" if worst == "refused" else "upstream_unreachable",
        host=row["host"],
    )


def _answers_badly(moment: Moment, seen: View, row: Mapping[str, Any]) -> Finding:
    bad = {status: count for status, count in row["statuses"].items() if status[:1] == "5" or status == "429"}
    worst = max(bad, key=bad.__getitem__)
    share = row["bad_answers"] / row["answers"]
    busy = worst in ("429", "503")
    return finding(
        _level(moment, seen),
        f"{name_of(row['host'], row['lines'])} answers {worst} to {share:.0%} of its requests ({row['bad_answers']} of "
        f"{row['answers']} in the last {window(moment)}{_retries(row)}).",
        f"{'It is overloaded or limits us: ask it less often' if busy else 'The trouble is there: ask who runs it'}"
        f"{', and retry with growing pauses' if _retries(row) else ''}.{_called(row)}",
        cause="upstream_fails",
        host=row["host"],
    )


def _is_silent(row: Mapping[str, Any], seen: View, moment: Moment) -> bool:
    """Nothing has come of it for long, by its own measure as well; and it is most of what upstreams are waited for."""
    total = concerned(seen["in_flight_states"], seen["waits"])
    waiting = sum(one["count"] for one in seen["waits"] if one["state"] == "upstream")
    is_much = row["waiting"] >= max(FEWEST, SHARE_OF_WAITING * total) and row["waiting"] > waiting / 2
    has_answered = row["answers"] or row["rate"] * moment.window_seconds >= 1
    longest = max(SILENT_SECONDS, 3 * (row["usual_seconds"] or 0.0))
    return bool(is_much and not has_answered and row["longest_seconds"] >= longest)


def _silent(row: Mapping[str, Any], total: float) -> Finding:
    needed = routes(row["lines"])
    return finding(
        BAD,
        f"{name_of(row['host'], row['lines'])} answers nobody: {row['waiting']:g} of {requests(total)} wait for it"
        f"{f' ({needed})' if needed else ''}, the longest for {duration(row['longest_seconds'])}.",
        f"See whether it hangs, and what it waits for itself; a timeout of the client's keeps requests from piling up."
        f"{_called(row)}",
        cause="upstream_silent",
        host=row["host"],
    )
