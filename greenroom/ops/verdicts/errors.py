"""Requests that fail: of what, at which line, since when; and limits of the machine that they met."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..collect import Moment
from ..shapes import View
from .advice import KNOWN
from .finding import BAD, FEWEST, WATCH, Finding, finding
from .peers import name_of
from .words import count_of, requests, window

ERROR_SHARE = 0.05
MOST_FAIL = 0.5
# An exception that begins so soon after a reload is of its code.
AFTER_RELOAD_SECONDS = 30.0
# Limits of the machine by errno: the cause, what is said, and what to do.
LIMITS = {
    "ENOSPC": ("disk_full", "The disk is full (ENOSPC)", "Make room: what has grown there? (df -h, df -i)"),
    "EDQUOT": ("disk_full", "The disk quota is used up (EDQUOT)", "Make room, or raise the quota."),
    "EROFS": (
        "disk_full",
        "The disk can only be read (EROFS)",
        "The file system was mounted so, or has an error: dmesg.",
    ),
    "EMFILE": (
        "descriptors",
        "The process has no file descriptor left (EMFILE)",
        "Raise the limit (ulimit -n, LimitNOFILE=); see what is opened and not closed.",
    ),
    "ENFILE": (
        "descriptors",
        "The machine has no file descriptor left (ENFILE)",
        "Raise fs.file-max; see who has them.",
    ),
    "EPIPE": (
        "broken_pipe",
        "Nobody reads what is written there any more (EPIPE)",
        "Mostly the log's reader or a child process has ended: start it again, or log to a file.",
    ),
    "MemoryError": (
        "out_of_memory",
        "Memory is used up (MemoryError)",
        "Give the server more, or fewer workers; see which route asks for so much.",
    ),
    "ENOMEM": ("out_of_memory", "Memory is used up (ENOMEM)", "Give the server more, or fewer workers."),
    "EAGAIN": ("processes", "No further process or thread can be started (EAGAIN)", "Raise ulimit -u, or start fewer."),
}
HIDDEN = "\N{HORIZONTAL ELLIPSIS}"  # in place of what redaction left out of a message
ADDRESS = re.compile(r"host='([\w.:-]+)', port=(\d+)")  # as urllib3 says it
WORDS = {
    "No space left on device": "ENOSPC",
    "database or disk is full": "ENOSPC",
    "Too many open files": "EMFILE",
    "Broken pipe": "EPIPE",
    "Cannot allocate memory": "ENOMEM",
    "can't start new thread": "EAGAIN",
}


def limits_met(moment: Moment, seen: View) -> list[Finding]:
    """A limit of the machine that exceptions name, whatever else is wrong."""
    found: dict[str, Finding] = {}
    for row in seen["failures"]:
        number = limit_of(row)
        if number not in LIMITS or not row["recent"]:
            continue
        cause, words, do = LIMITS[number]
        if cause not in found:
            found[cause] = finding(
                BAD,
                f"{words}: {_failed(row, moment, seen)}.",
                do,
                cause=cause,
                failure=row,
            )
    return list(found.values())


def limit_of(row: Mapping[str, Any]) -> str:
    """The errno's name where it is a limit of the machine's; "" where it is not."""
    if row["number"] in LIMITS and not (row["number"] == "EAGAIN" and "Blocking" in row["root"]):
        return str(row["number"])
    if "MemoryError" in (row["name"], row["root"]):
        return "MemoryError"
    return next((number for words, number in WORDS.items() if words in row["message"]), "")


def failing(moment: Moment, seen: View) -> list[Finding]:
    rows = [row for row in seen["failures"] if row["recent"] and not limit_of(row)]
    at_limits = sum(row["recent"] for row in seen["failures"] if limit_of(row))  # told as that
    failed = seen["total"]["failed_count"] - _asked_by_ourselves(moment, seen) - at_limits
    asked = seen["total"]["finished_count"]
    if failed < 0.5 or failed < ERROR_SHARE * asked:
        return _in_one_route(moment, seen, rows) if failed >= FEWEST else []
    level = BAD if failed >= MOST_FAIL * asked and failed >= FEWEST else WATCH
    numbers = f"{failed:.0f} of {requests(asked)} in the last {window(moment)} fail"
    return [_finding(level, numbers, moment, seen, rows)]


def _in_one_route(moment: Moment, seen: View, rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Few of all, and much of one route's."""
    for route in seen["routes"]:
        count, bad = route.get("recent") or 0, route["errors"]
        if bad >= FEWEST and bad >= ERROR_SHARE * count and not _is_own_errors(route, moment, seen):
            own = [row for row in rows if row["route"] == route["route"]]
            numbers = f"{bad:g} of {requests(count)} of {route['route']} in the last {window(moment)} fail"
            return [_finding(WATCH, numbers, moment, seen, own)]
    return []


def _finding(level: str, numbers: str, moment: Moment, seen: View, rows: Sequence[Mapping[str, Any]]) -> Finding:
    if not rows and (name := _counted(moment, seen)):
        return finding(
            level,
            f"{numbers}: {name}; the workers that met it have ended since.",
            "The log has the traceback.",
            cause="errors",
        )
    if not rows:
        worst = max(seen["routes"], key=lambda row: row["errors"], default=None)
        where = f", most of them in {worst['route']}" if worst and worst["errors"] else ""
        return finding(
            level,
            f"{numbers}: answered with a status of 500 or more, by no exception that was seen{where}.",
            "The route answers so itself, or its framework caught the exception: its own log says why.",
            cause="errors",
        )
    first = rows[0]
    others = len(rows) - 1
    more = f"; and {count_of(others, 'other exception')}" if others else ""
    return finding(
        level,
        f"{numbers}: {_failed(first, moment, seen)}{more}.",
        _advice(first, moment, seen),
        cause="errors",
        failure=first,
    )


def _counted(moment: Moment, seen: View) -> str:
    """The exception that came most often, of which only the count is left: "KeyError (/price)"; "" if none was seen."""
    now, before = moment.sums["failed"], moment.before["failed"]
    grown = {name: row["count"] - before.get(name, {}).get("count", 0) for name, row in now.items()}
    most = max(grown, key=grown.__getitem__, default=None)
    if most is None or grown[most] <= 0:
        return ""
    return f"{now[most]['class']} ({now[most]['route']})"


def _failed(row: Mapping[str, Any], moment: Moment, seen: View) -> str:
    """The exception in words: "ZeroDivisionError: division by zero at app.py:4 (/ok), 52 since 03:10:02"."""
    said = f"{row['name']}: {row['message'].rstrip('.')}" if row["message"] else row["name"]
    if HIDDEN in row["message"] and (began := row.get("began")) and began not in row["message"]:
        address = ADDRESS.search(row["message"])
        to = f" ({address[1]}:{address[2]})" if address else ""
        said = f"{row['name']}{to}, which began as {row['root']}: {began.rstrip('.')}"
    where = f" at {row['line']}" if row["line"] else ""
    route = f" ({row['route']})" if row["route"] not in ("", "other") else ""
    return f"{said}{where}{route}, {row['count']:g} since {_clock(row['first_at'])}{_after_reload(row, seen)}"


def _after_reload(row: Mapping[str, Any], seen: View) -> str:
    at = (seen.get("reload") or {}).get("at")  # None where nothing came of it
    if at is not None and 0.0 <= row["first_at"] - at <= AFTER_RELOAD_SECONDS:
        return f", right after the reload at {_clock(at)}"
    return ""


def _advice(row: Mapping[str, Any], moment: Moment, seen: View) -> str:
    if _after_reload(row, seen):
        return "It began with the new code: go back to the old one (and kill -HUP), or repair that line."
    said = f"{row['name']} {row['root']} {row['message']} {row.get('began') or ''}"
    known = next((do for words, do in KNOWN if any(word in said for word in words)), "")
    if known:
        host = host_of(row, seen)
        subject = name_of(host, [{"library": row.get("library", "")}]) if host else "The upstream"
        return known.format(host=host or "the upstream", subject=subject)
    return f"The log has the traceback; it ends at {row['line']}." if row["line"] else "The log has the traceback."


def host_of(row: Mapping[str, Any], seen: View) -> str:
    """The upstream that an exception is about: its message says so, or one alone is called at its line, or at all."""
    if found := ADDRESS.search(row["message"]):
        return f"{found[1]}:{found[2]}"
    asked = [one for one in seen["upstreams"] if one["rate"] > 0 or one["waiting"]]
    at_line = [
        one
        for one in asked
        if row["line"] and any(line.get("line") == row["line"] for line in [*one["bad_lines"], *one["lines"]])
    ]
    for some in (at_line, asked):
        if len(some) == 1:
            return str(some[0]["host"])
    return ""


def _asked_by_ourselves(moment: Moment, seen: View) -> float:
    """Answers of 500 or more that went to this server's own routes, which handled them: no client has seen one.

    How they were answered is known where our transport asked. Else a route is taken for such a one (the demo's source
    that always answers 503) that never answers anything else, fails by no exception, and while the server asks itself.
    """
    own = [row for row in seen["upstreams"] if row["host"] in seen["about"].get("bind", ())]
    known = sum(row["bad_answers"] for row in own)
    asked = sum(row["rate"] for row in own) * moment.window_seconds
    raising = {row["route"] for row in seen["failures"] if row["recent"]}
    always = [
        row["errors"] for row in seen["routes"] if row["errors"] == row.get("recent") and row["route"] not in raising
    ]
    return float(max(known, min(sum(always), asked)))


def _is_own_errors(route: Mapping[str, Any], moment: Moment, seen: View) -> bool:
    return bool(_asked_by_ourselves(moment, seen) >= 0.5 * route["errors"])


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
