"""The result of a run, as it is saved, compared, printed and drawn: one dict that JSON can carry."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from .expectations import Expectation
from .tally import Percentiles, Route, Tally, percentiles, route_as_json, second_as_json
from .units import LoadError
from .validity import Validity, judge

FORMAT = "greenroom-load/1"
HELD, NOT_HELD, COULD_NOT_RUN, NOT_VALID = 0, 1, 2, 3


@dataclass
class Facts:
    """The engine's measurements and its orders. `asked_per_second` is None in the closed model."""

    tally: Tally
    elapsed: float
    cpu_seconds: float
    unfinished: int
    stopped: str
    asked_per_second: float | None
    expectations: Sequence[Expectation] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    causes: Sequence[Mapping[str, Any] | None] = ()
    began_at: float = 0.0


class Result(Percentiles):
    """The whole result. `limited_by`, `ops` and `capacity_per_second` are filled in by those that know them."""

    format: str
    valid: bool
    problems: list[str]
    held: bool
    asked_per_second: float | None  # None in the closed model
    good_per_second: float
    errors: int
    shed: int
    good: int
    requests: int
    errors_ratio: float
    shed_ratio: float
    errors_by_kind: dict[str, int]
    expectations: list[dict[str, Any]]
    limited_by: str | None
    capacity_per_second: float | None
    capacity: dict[str, Any] | None
    ops: str | None  # the address of the ops page that was watched
    planned: int
    unsent: int
    unsent_by_kind: dict[str, int]
    late: int
    waited_for_connection: int
    unfinished: int
    duration_seconds: float
    stopped: str | None
    model: str
    bytes: int
    events: int
    routes: dict[str, dict[str, Any]]
    seconds: list[dict[str, Any]]
    generator: dict[str, Any]
    histogram: dict[str, Any]
    settings: dict[str, Any]
    machine: dict[str, Any]
    began_at: float
    recorded: dict[str, Any] | None  # of traffic that was played again


def document(facts: Facts) -> Result:
    """The result of what was measured."""
    tally = facts.tally
    whole = tally.whole()
    length = _length(facts)
    good_per_second = tally.good_per_second(length, is_whole=not facts.stopped)
    rows, failed = judged(facts.expectations, tally, whole, length, good_per_second)
    cpu_ratio = facts.cpu_seconds / facts.elapsed if facts.elapsed > 0 else 0.0
    validity = judge(tally, whole.latency, cpu_ratio, failed, is_expected=bool(rows))
    return {
        "format": FORMAT,
        "valid": validity.is_valid,
        "problems": list(validity.problems),
        "held": all(row["held"] for row in rows),
        "asked_per_second": _rounded(facts.asked_per_second),
        "good_per_second": round(good_per_second, 3),
        **percentiles(whole.latency),
        "errors": whole.errors,
        "shed": whole.shed,
        "good": whole.good,
        "requests": whole.requests,
        "errors_ratio": whole.errors / whole.requests if whole.requests else 0.0,
        "shed_ratio": whole.shed / whole.requests if whole.requests else 0.0,
        "errors_by_kind": dict(whole.kinds.most_common()),
        "expectations": rows,
        "limited_by": None,
        "capacity_per_second": None,
        "capacity": None,
        "ops": None,
        "planned": tally.planned,
        "unsent": sum(tally.unsent.values()),
        "unsent_by_kind": dict(tally.unsent),
        "late": sum(row.late for row in tally.seconds),
        "waited_for_connection": tally.waited,
        "unfinished": facts.unfinished,
        "duration_seconds": round(length, 3),
        "stopped": facts.stopped or None,
        "model": "open" if facts.asked_per_second is not None else "closed",
        "bytes": whole.bytes,
        "events": tally.events,
        "routes": {name: route_as_json(route) for name, route in sorted(tally.routes.items())},
        "seconds": _seconds(tally, facts.causes),
        "generator": _generator(facts, cpu_ratio),
        "histogram": whole.latency.as_json(),
        "settings": dict(facts.settings),
        "machine": machine(),
        "began_at": facts.began_at,
        "recorded": None,
    }


def _length(facts: Facts) -> float:
    """How long requests were due: as planned, unless it was stopped."""
    planned = facts.tally.length
    if planned is None:
        return facts.elapsed
    return min(planned, facts.elapsed) if facts.stopped else planned


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def judged(
    expectations: Sequence[Expectation], tally: Tally, whole: Route, length: float, good_per_second: float
) -> tuple[list[dict[str, Any]], list[tuple[Expectation, float | None]]]:
    """A row for each expectation, and those that did not hold with what was measured."""
    rows: list[dict[str, Any]] = []
    failed: list[tuple[Expectation, float | None]] = []
    for one in expectations:
        route = route_of(one, tally, whole)
        value = one.value(route, length, good_per_second=good_per_second if route is whole else None)
        held = one.holds(value)
        rows.append({"text": one.text, "held": held, "measured": _in_unit(one, value)})
        if not held:
            failed.append((one, value))
    return rows, failed


def route_of(one: Expectation, tally: Tally, whole: Route) -> Route:
    """Return the requests that an expectation is about: all, or those with the name or path it gives."""
    if not one.route:
        return whole
    found = [route for name, route in tally.routes.items() if one.route in (name, name.partition(" ")[2])]
    whole_of_it = Route()
    for route in found:
        whole_of_it.merge(route)
    return whole_of_it


def _in_unit(one: Expectation, value: float | None) -> float | None:
    """Milliseconds, a share between 0 and 1, or a number a second."""
    if value is None:
        return None
    return round(value * 1000, 3) if one.is_latency else round(value, 6)


def _seconds(tally: Tally, causes: Sequence[Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    rows = [second_as_json(number, row) for number, row in enumerate(tally.seconds)]
    for number, row in enumerate(rows):
        cause = causes[number] if number < len(causes) else None
        if cause is not None:
            row["server"] = dict(cause)
    return rows


def _generator(facts: Facts, cpu_ratio: float) -> dict[str, Any]:
    tally = facts.tally

    def milliseconds(value: float | None) -> float | None:
        return None if value is None else round(value * 1000, 3)

    return {
        "cpu_ratio": round(cpu_ratio, 3),
        "cpu_us_per_request": round(facts.cpu_seconds / tally.planned * 1e6, 1) if tally.planned else None,
        "late_p50_ms": milliseconds(tally.lateness.percentile(50)),
        "late_p99_ms": milliseconds(tally.lateness.percentile(99)),
        "late_max_ms": milliseconds(tally.lateness.largest),
        "read_late_p99_ms": milliseconds(tally.reading.percentile(99)),
        "connections": tally.connections,
    }


def machine() -> dict[str, Any]:
    return {
        "greenroom": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def exit_code(said: Mapping[str, Any]) -> int:
    """Return the exit code for the shell and CI."""
    if not said["valid"]:
        return NOT_VALID
    if said["requests"] and not said["expectations"] and not answers(said):
        return COULD_NOT_RUN
    return HELD if said["held"] else NOT_HELD


def answers(said: Mapping[str, Any]) -> int:
    """How many answers of HTTP came, good or not."""
    failed: int = sum(count for kind, count in said["errors_by_kind"].items() if not _is_an_answer(kind))
    return int(said["requests"]) - failed


def _is_an_answer(kind: str) -> bool:
    return kind.startswith(("status ", "check failed", "redirects"))


def save(path: Path, text: str) -> None:
    """Write a report, whole or not at all. Raises LoadError when it can't be."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe
            path.write_text(text, encoding="utf-8")
            return
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise LoadError(
            f"the report cannot be saved in {path}: {exc.strerror or exc}; make room, or name another file"
        ) from exc


def load(path: Path) -> dict[str, Any]:
    """A saved result. Raises LoadError for what is none."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise LoadError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise LoadError(f"{path} is no result of `greenroom load --json`: {exc}") from exc
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise LoadError(f"{path} is no result of `greenroom load --json`")
    return said


def now_at() -> float:
    """The time of day, for the report's head only: nothing is measured with it."""
    return time.time()


__all__ = ["Facts", "Validity", "document", "exit_code", "load", "route_of", "save"]
