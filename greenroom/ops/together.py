"""Sums of what the workers say: pools, waits, counts and rates of all of them together."""

from collections.abc import Mapping
from typing import Any

from . import sights
from .collect import Moment
from .shapes import WaitRow
from .sights import answered
from .verdicts.words import middle

MOST_ROWS = 50


def rate(moment: Moment, name: str) -> float:
    if moment.window_seconds <= 0:
        return 0.0
    return max(0.0, moment.totals[name] - moment.totals_before[name]) / moment.window_seconds


_POOL_NUMBERS = ("size", "in_use", "waiting")


def pools(moment: Moment) -> list[dict[str, Any]]:
    """Each pool by name, its connections in all workers together; those that somebody waits for first.

    No worker can use another one's: `ratio` is how full the fullest is, and `fullest` says which, where that differs.
    """
    found: dict[str, dict[str, Any]] = {}
    for seen, said in answered(moment):
        for pool in said.get("pools") or []:
            name = str(pool.get("name", "?"))
            kind = str(pool.get("kind", "database"))
            row = found.setdefault(
                f"{kind} {name}",
                {
                    "name": name,
                    "kind": kind,
                    **dict.fromkeys(_POOL_NUMBERS, 0),
                    "workers": 0,
                    "ratio": 0.0,
                    "fullest": "",
                    "holder": None,  # the one that has had a connection for longest
                },
            )
            size, in_use, waiting = (pool.get(number) or 0 for number in _POOL_NUMBERS)
            for number, amount in zip(_POOL_NUMBERS, (size, in_use, waiting), strict=True):
                row[number] += amount
            row["workers"] += 1
            for holder in pool.get("holders") or []:
                if holder["seconds"] > (row["holder"] or {"seconds": 0.0})["seconds"]:
                    row["holder"] = holder
            ratio = 1.0 if waiting else in_use / size if size else 0.0
            if ratio > row["ratio"]:
                row["ratio"], row["fullest"] = ratio, f"worker {seen.number}: {in_use:g} of {size:g}"
    for row in found.values():
        if row["in_use"] >= row["ratio"] * row["size"]:
            row["fullest"] = ""
    return sorted(found.values(), key=lambda row: (-row["waiting"], -row["in_use"]))


def waited_for(moment: Moment) -> list[WaitRow]:
    """Group the waits in flight of all workers: {state, detail, count, middle_seconds, longest_seconds}.

    The middle of the workers' middles is near enough to that of all.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for _, said in answered(moment):
        for row in said.get("waiting") or []:
            found.setdefault((row["state"], row["detail"]), []).append(row)
    rows: list[WaitRow] = [
        {
            "state": state,
            "detail": detail,
            "lines": sights.lines_of(same),
            "count": sum(row["count"] for row in same),
            "middle_seconds": middle((row["middle_seconds"], row["count"]) for row in same),
            "longest_seconds": max(row["longest_seconds"] for row in same),
        }
        for (state, detail), same in found.items()
    ]
    return sorted(rows, key=lambda row: -row["count"])[: 2 * MOST_ROWS]


def counted(moment: Moment, name: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for _, said in answered(moment):
        for key, count in (said.get(name) or {}).items():
            total[key] = total.get(key, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1])[:MOST_ROWS])
