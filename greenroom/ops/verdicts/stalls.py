"""Loops that stood still, and do no more."""

from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from .finding import RECENT_SECONDS, WATCH, Finding, finding
from .words import count_of, duration

STALLING_SECONDS = 1.0


def recent(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    recent = [stall for stall in seen["stalls"]["last"] if stall["ago_seconds"] < RECENT_SECONDS and stall.get("line")]
    by_line: dict[str, list[float]] = {}
    for stall in recent:
        # What the machine took away in the meantime is not the line's doing.
        own = stall["seconds"] - (stall.get("stolen_seconds") or 0.0)
        by_line.setdefault(str(stall["line"]), []).append(max(0.0, own))
    line, seconds = max(by_line.items(), key=lambda item: sum(item[1]), default=("", [0.0]))
    if sum(seconds) < STALLING_SECONDS:
        return []
    last = next(stall for stall in recent if stall["line"] == line)
    route = f" ({last['route']})" if last.get("route") else ""
    gil = ", C code held the GIL" if last.get("holds_gil") else ""
    return [
        finding(
            WATCH,
            f"{line}{route} blocked worker {last['worker']} for {duration(sum(seconds))} in the last minute "
            f"({count_of(len(seconds), 'stall')}{gil}).",
            "While it runs, no other request of that worker moves.",
            cause="stalls",
            line=line,
        )
    ]
