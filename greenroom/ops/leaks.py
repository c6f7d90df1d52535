"""What requests leave behind, more and more of it: threads and greenlets by the line that starts them, child processes.

A number grows when it did so in each third of the time that is looked at. Greenlets are counted in their worker, every
five seconds or more rarely the more there are; children are told by Linux, and elsewhere not known.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .. import clock

LOOK_SECONDS = 2.0
WINDOW_SECONDS = 60.0
SHORTEST_WINDOW_SECONDS = 15.0
# By so many they have to grow within the window.
GROWN = {"threads": 100, "children": 20}
MOST_NAMED = 50

What = tuple[int, int, str, str]  # pid, worker, kind, name


class Leaks:
    """Runs on: the collecting thread of the ops process."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self.now = now
        self.found: list[dict[str, Any]] = []
        self._looked_at = float("-inf")
        self._counts: dict[What, deque[tuple[float, int]]] = {}

    def look(self, workers: Iterable[tuple[int, int, dict[str, int]]]) -> list[dict[str, Any]]:
        """`workers` are (pid, number, greenlets by the line that started them). Costs a millisecond for a few."""
        now = self.now()
        if now - self._looked_at < LOOK_SECONDS:
            return self.found
        self._looked_at = now
        counted: dict[What, int] = {}
        for pid, number, by_line in workers:
            for line, count in by_line.items():
                counted[pid, number, "threads", line] = count
            children = children_of(pid)
            if len(children) >= GROWN["children"]:
                counted[pid, number, "children", commonest(children)] = len(children)
        kept = {}
        for what, count in counted.items():
            counts = kept[what] = self._counts.get(what) or deque()
            counts.append((now, count))
            while now - counts[0][0] > WINDOW_SECONDS:
                counts.popleft()
        self._counts = kept
        rows = [row for what, counts in kept.items() if (row := grown(what, list(counts))) is not None]
        self.found = sorted(rows, key=lambda row: -row["grown"])
        return self.found


def grown(what: What, counts: list[tuple[float, int]]) -> dict[str, Any] | None:
    """How it grew; None if it did not all the time."""
    _, worker, kind, name = what
    seconds = counts[-1][0] - counts[0][0]
    if seconds < SHORTEST_WINDOW_SECONDS:
        return None
    at = [counts[len(counts) * part // 3 - (part == 3)][1] for part in range(4)]
    more = at[-1] - at[0]
    steps = [after - before for before, after in zip(at, at[1:], strict=False)]
    if more < GROWN[kind] or min(steps) < more / 12:
        return None
    return {"worker": worker, "kind": kind, "name": name, "count": at[-1], "grown": more, "seconds": seconds}


def children_of(pid: int) -> list[int]:
    """The child processes that have not been waited for."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    except OSError:
        return []  # it has ended, or the kernel does not tell
    return found


def commonest(children: list[int]) -> str:
    """The program that most of them are."""
    names: Counter[str] = Counter()
    for pid in children[-MOST_NAMED:]:
        try:
            names[Path(f"/proc/{pid}/comm").read_text().strip()] += 1
        except OSError:
            continue
    return names.most_common(1)[0][0] if names else ""
