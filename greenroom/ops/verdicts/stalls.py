"""Loops that stood still lately, and do no more: the line, the garbage collector, the log."""

from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from ..shapes import View
from .blocking import advice, garbage_share, is_garbage, is_log, is_wait
from .finding import BAD, FEWEST, RECENT_SECONDS, WATCH, Finding, finding
from .words import count_of, duration

STALLING_SECONDS = 1.0
# From this share of the last minute on it is what requests feel most.
MUCH_SECONDS = 15.0
# Or this share of the time since it began, if it was not once or twice.
MUCH_SHARE = 0.25
OFTEN_SECONDS = 5.0
# The view has so many of the last ones.
MOST_STALLS = 20
GARBAGE_SHARE = 0.15
FEWEST_COLLECTIONS = 10


def recent(moment: Moment, seen: View) -> list[Finding]:
    recent = [stall for stall in seen["stalls"]["last"] if stall["ago_seconds"] < RECENT_SECONDS and stall.get("line")]
    by_line: dict[str, list[Mapping[str, Any]]] = {}
    for stall in recent:
        if not is_garbage(stall):
            by_line.setdefault(str(stall["line"]), []).append(stall)
    line, same = max(by_line.items(), key=lambda item: sum(map(_own, item[1])), default=("", []))
    seconds = sum(map(_own, same))
    if seconds < STALLING_SECONDS:
        return []
    last = same[0]
    route = f" ({last['route']})" if last.get("route") else ""
    waits = sum(map(is_wait, same)) * 2 > len(same)
    how = ""
    logs = is_log(last.get("stack") or [])
    if logs:
        how = ", writing the log" + (", which nobody reads fast enough" if waits else "")
    elif waits:
        how = ", waiting in C without using the CPU"
    elif last.get("holds_gil"):
        how = ", C code held the GIL"
    do = advice(line, waits=waits, stack=last.get("stack") or [])
    workers = {stall["worker"] for stall in same}
    whom = f"worker {last['worker']}" if len(workers) == 1 else count_of(len(workers), "worker")
    span = _span(seen)
    began = max(float(stall["ago_seconds"]) + float(stall["seconds"]) for stall in same)
    is_often = len(same) >= FEWEST and seconds > OFTEN_SECONDS and seconds > MUCH_SHARE * began * len(workers)
    is_much = seconds > MUCH_SECONDS or is_often
    return [
        finding(
            BAD if is_much and waits else WATCH,
            f"{line}{route} blocked {whom} for {duration(seconds)}"
            f"{' together' if len(workers) > 1 else ''} in the last "
            f"{'minute' if span == RECENT_SECONDS else duration(span)} ({count_of(len(same), 'stall')}{how}).",
            f"While it runs, no other request of that worker moves. {do}".strip(),
            cause="log_blocks" if logs and waits else "stalls",
            line=line,
        )
    ]


def _span(seen: View) -> float:
    """How far back the stalls that are kept go, a minute at most: where there are many, it is less."""
    kept = seen["stalls"]["last"]
    if len(kept) < MOST_STALLS:
        return RECENT_SECONDS
    oldest = max(kept, key=lambda stall: stall["ago_seconds"])
    return float(min(RECENT_SECONDS, max(1.0, oldest["ago_seconds"] + oldest["seconds"])))


def garbage(moment: Moment, seen: View) -> list[Finding]:
    """The collector stops the loop at any line; it is what to look at, and not the line."""
    recent = [stall for stall in seen["stalls"]["last"] if stall["ago_seconds"] < RECENT_SECONDS and is_garbage(stall)]
    seconds = sum(float(stall["garbage_seconds"]) for stall in recent)
    spent = seen["garbage"]
    share = garbage_share(seen)
    if seconds < STALLING_SECONDS and (share < GARBAGE_SHARE or spent["count"] < FEWEST_COLLECTIONS):
        return []
    longest = max((float(stall["garbage_seconds"]) for stall in recent), default=spent["longest_seconds"])
    many = f"{count_of(len(recent), 'time')} in the last minute," if recent else "again and again,"
    return [
        finding(
            WATCH,
            f"Garbage collection stops the workers: {many} for up to {duration(longest)} ({share:.0%} of the time).",
            "The heap is big: keep fewer objects (a cache of rows, say), or call gc.freeze() once it is loaded; "
            "gc.set_threshold() makes collections rarer.",
            cause="garbage",
        )
    ]


def _own(stall: Mapping[str, Any]) -> float:
    """Return the line's own part of a stall, without the time that the machine took away meanwhile."""
    return max(0.0, float(stall["seconds"]) - float(stall.get("stolen_seconds") or 0.0))
