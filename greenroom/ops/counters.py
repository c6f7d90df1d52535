"""Sums of what all workers have counted, the dead included, so that no counter ever falls.

    sums = what the dead had counted, as last seen + what the living say

A worker counts from 0 and says its `start_id`. One that ends orderly leaves its last words; of one that was killed,
what it counted since it was last asked is lost (less than a second; what must not be lost is on the scoreboard). All
of it is kept in a file, so that the ops process itself can be killed, and workers with it: those that are gone when
the next one begins are counted as they were seen last.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

# A worker keeps its own number of routes, hosts and lines bounded; different workers can know different ones.
MOST_NAMES = 300
OTHER = "other"
MOST_REMEMBERED = 2000
ROUTE_NUMBERS = ("count", "total_seconds", "cut")
DATABASE_NUMBERS = ("refused", "timed_out", "full", "failed")
FLAT = ("garbage", "sheds", "refused")
LOOP_NUMBERS = ("turns", "busy_seconds", "idle_seconds", "late_turns", "request_seconds", "stolen_seconds")


class Counters:
    """Runs on: the collecting thread of the ops process."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.gone = empty()
        self.living: dict[str, dict[str, Any]] = {}
        self.pids: dict[str, int] = {}  # of the living
        self.folded: list[str] = []
        # By kind. A kind that has a name of its own keeps it: a counter that moved to "other" would fall.
        self.names: dict[str, set[str]] = {kind: set() for kind in NAMED}
        self._has_warned = False
        self._saved: Any = None
        if path is not None and path.exists():
            self._load(path)

    def update(self, snapshot: Mapping[str, Any], pid: int = 0) -> None:
        """Take in the counts of a living worker. An earlier one with the same pid is gone."""
        start_id = snapshot.get("start_id")
        if not start_id or start_id in self.folded:
            return
        if pid:
            for other in self.of(pid):
                if other != start_id:
                    self.fold(other)
            self.pids[start_id] = pid
        self.living[start_id] = self._countable(snapshot, self.living.get(start_id))

    def of(self, pid: int) -> list[str]:
        """The start ids of the workers that are, or were, this process."""
        return [start_id for start_id, known in self.pids.items() if known == pid]

    def fold(self, start_id: str, last_words: Mapping[str, Any] | None = None) -> None:
        """Add the counts of a worker that is gone to the totals."""
        last = self.living.pop(start_id, None)
        self.pids.pop(start_id, None)
        if last_words is not None and last_words.get("start_id") == start_id:
            last = self._countable(last_words, last)
        if last is None or start_id in self.folded:
            return
        self.gone = add(self.gone, last)
        self.folded = [*self.folded[-MOST_REMEMBERED:], start_id]

    def add_last_stall(self, line: str, seconds: float, route: str, ended_at: float) -> None:
        """Count the stall that a worker was killed in: it has not ended, so nobody has counted it.

        `killed` says how many of all stalls these are, which the scoreboard knows nothing of.
        """
        row = {
            "line": line,
            "count": 1,
            "seconds": seconds,
            "longest_seconds": seconds,
            "route": route,
            "last_at": ended_at - seconds,
        }
        stalls = {"total": 1, "seconds": seconds, "killed": 1}
        self.gone = add(self.gone, self._countable({"stalls": {**stalls, "top": [row]}}, None))

    def total(self) -> dict[str, Any]:
        total = self.gone
        for counted in self.living.values():
            total = add(total, counted)
        return total

    def _countable(self, snapshot: Mapping[str, Any], known_before: Mapping[str, Any] | None) -> dict[str, Any]:
        counted = countable(snapshot)
        for kind, add_one in NAMED.items():
            names = self.names[kind]
            result: dict[str, Any] = {}
            for name, value in counted[kind].items():
                known = name if name in names or len(names) < MOST_NAMES else OTHER
                names.add(known)
                result[known] = add_one(result[known], value) if known in result else value
            if known_before is not None:
                # A worker forgets the least of its lines when there are too many, and begins anew with them.
                for name, before in known_before[kind].items():
                    if result.get(name, {}).get("count", 0) < before.get("count", 0):
                        result[name] = before
            counted[kind] = result
        return counted

    def save(self) -> None:
        """Keep it all, before it is shown: what was shown once must not be lost. Loops turn without any work."""
        living = {
            start_id: {name: value for name, value in counted.items() if name != "loop"}
            for start_id, counted in self.living.items()
        }
        if self.path is None or self._saved == (self.gone, living):
            return
        self._saved = (self.gone, living)
        try:
            part = self.path.with_suffix(".part")
            part.write_text(
                json.dumps({"gone": self.gone, "folded": self.folded, "living": self.living, "pids": self.pids})
            )
            part.replace(self.path)
        except OSError as exc:
            if not self._has_warned:
                logger.warning("counts of workers that are gone can't be kept for a restart of this process: %s", exc)
            self._has_warned = True

    def _load(self, path: Path) -> None:
        try:
            kept = json.loads(path.read_text())
            self.gone, self.folded = {**empty(), **kept["gone"]}, list(kept["folded"])
            self.living = {start_id: {**empty(), **counted} for start_id, counted in kept["living"].items()}
            self.pids = {start_id: int(pid) for start_id, pid in kept["pids"].items()}
            self.names = {kind: set(self.total()[kind]) for kind in NAMED}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            logger.warning("what workers counted before can't be read, counters begin anew: %s", exc)


def empty() -> dict[str, Any]:
    flat: dict[str, Any] = {name: {} for name in FLAT}
    return {"states": [], "le": [], "seconds": [], "loop": {}, "stalls": {}, **flat, **{kind: {} for kind in NAMED}}


def countable(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a snapshot that only ever grows."""
    stalls = snapshot.get("stalls") or {}
    return {
        "states": snapshot.get("states", []),
        "le": snapshot.get("le", []),
        "seconds": snapshot.get("seconds", []),
        "loop": {name: (snapshot.get("loop") or {}).get(name, 0) for name in LOOP_NUMBERS},
        "routes": snapshot.get("routes") or {},
        "upstreams": snapshot.get("upstreams") or {},
        "stalls": {name: stalls.get(name, 0) for name in ("total", "seconds", "unblamed", "killed")},
        "lines": {row["line"]: row for row in stalls.get("top", [])},
        "held": {f"{row['used']} > {row['upstream']}": row for row in snapshot.get("held") or []},
        "databases": {
            name: {key: row.get(key, 0) for key in DATABASE_NUMBERS}
            for name, row in (snapshot.get("databases") or {}).items()
        },
        "failed": snapshot.get("failed") or {},
        "queries": snapshot.get("queries") or {},
        "garbage": {name: (snapshot.get("garbage") or {}).get(name, 0) for name in ("count", "seconds")},
        "sheds": (snapshot.get("clients") or {}).get("shed") or {},
        "refused": (snapshot.get("clients") or {}).get("refused") or {},
    }


def add(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "states": other["states"] or one["states"],
        "le": other["le"] or one["le"],
        "seconds": add_lists(one["seconds"], other["seconds"]),
        "loop": add_numbers(one["loop"], other["loop"]),
        "routes": add_named(one["routes"], other["routes"], add_routes),
        "upstreams": add_named(one["upstreams"], other["upstreams"], add_numbers),
        "stalls": add_numbers(one["stalls"], other["stalls"]),
        "lines": add_named(one["lines"], other["lines"], add_lines),
        "held": add_named(one["held"], other["held"], add_held),
        "databases": add_named(one["databases"], other["databases"], add_numbers),
        "failed": add_named(one["failed"], other["failed"], add_failed),
        "queries": add_named(one["queries"], other["queries"], add_numbers),
        "garbage": add_numbers(one["garbage"], other["garbage"]),
        "sheds": add_numbers(one["sheds"], other["sheds"]),
        "refused": add_numbers(one["refused"], other["refused"]),
    }


def add_routes(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: one.get(name, 0) + other.get(name, 0) for name in ROUTE_NUMBERS},
        "statuses": add_numbers(one.get("statuses", {}), other.get("statuses", {})),
        "seconds": add_lists(one.get("seconds", []), other.get("seconds", [])),
        "buckets": add_lists(one.get("buckets", []), other.get("buckets", [])),
        "bands": add_named(one.get("bands", {}), other.get("bands", {}), add_lists),
    }


def add_lines(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    newer = max(one, other, key=lambda row: row.get("last_at") or 0)
    return {
        **newer,
        "count": one.get("count", 0) + other.get("count", 0),
        "seconds": one.get("seconds", 0) + other.get("seconds", 0),
        "longest_seconds": max(one.get("longest_seconds", 0), other.get("longest_seconds", 0)),
    }


def add_held(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two rows of the same lines; what releasing the connection would gain follows from the sums."""
    added = {name: one.get(name, 0) + other.get(name, 0) for name in ("count", "seconds", "held_seconds")}
    needed = max(added["held_seconds"] - added["seconds"], added["held_seconds"] / 1000)
    return {**one, **other, **added, "gain": added["held_seconds"] / needed if needed else 1.0}


def add_failed(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {**one, "count": one.get("count", 0) + other.get("count", 0)}


def add_numbers(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def add_lists(one: list[float], other: list[float]) -> list[float]:
    if not one or not other:
        return one or other
    return [left + right for left, right in zip(one, other, strict=False)]


def add_named(one: Mapping[str, Any], other: Mapping[str, Any], add_one: Callable[[Any, Any], Any]) -> dict[str, Any]:
    return {
        name: add_one(one[name], other[name]) if name in one and name in other else one.get(name, other.get(name))
        for name in {**one, **other}
    }


def difference(
    new: Mapping[str, float], old: Mapping[str, float], names: Iterable[str] | None = None
) -> dict[str, float]:
    """How much each number grew; never below 0."""
    return {name: max(0, new[name] - old.get(name, 0)) for name in (names or new)}


NAMED: dict[str, Callable[[Any, Any], Any]] = {
    "routes": add_routes,
    "upstreams": add_numbers,
    "lines": add_lines,
    "held": add_held,
    "databases": add_numbers,
    "failed": add_failed,
    "queries": add_numbers,
}
