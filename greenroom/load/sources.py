"""Arrivals as they were: from an access log, a HAR file of a browser, or a recording of Greenroom's flight recorder.

Access logs are those of nginx, Apache and gunicorn (common and combined), or lines of JSON as Greenroom writes them.
Their times have whole seconds, so the requests of a second are spread evenly over it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .request import Request
from .units import LoadError

# As greenroom.ops.report writes it, which this module does not import: it would load the server.
ARRIVALS_FORMAT = "greenroom-arrivals/1"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
UNKNOWN_ROUTES = ("other", "shed")
_LOG_LINE = re.compile(
    r'\S+ \S+ (?:\S+|.*?) \[(?P<at>[^\]]+)\] "(?P<method>[A-Z]+) (?P<target>\S+)(?: HTTP/[0-9.]+)?" (?P<status>\d{3})'
)
_BLOCK = re.compile(r'<script type="application/json" id="arrivals">(.*?)</script>', re.DOTALL)
_PLACE = re.compile(r"<(?:[^<>:]+:)?([A-Za-z_][A-Za-z0-9_]*)>")
_HEADERS_NOT_PLAYED = ("host", "content-length", "connection", "transfer-encoding", "accept-encoding", "cookie")


@dataclass(frozen=True)
class Arrival:
    """One request as it was. `path` is a pattern in a recording; `seconds` is what it took, None when nobody knows."""

    moment: float
    method: str
    path: str
    status: int = 0
    seconds: float | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True)
class Source:
    """All arrivals of a file, the first at 0. `notes` say what was left out."""

    kind: str
    arrivals: tuple[Arrival, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_recording(self) -> bool:
        return self.kind == "recording"


def read(path: Path, *, with_writes: bool = False) -> Source:
    """Raises LoadError for a file that has no arrivals, or cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        raise LoadError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    kind, found = _parsed(text, path)
    notes = []
    if kind != "recording" and not with_writes:
        kept = [one for one in found if one.method in SAFE_METHODS]
        if len(kept) < len(found):
            methods = Counter(one.method for one in found if one.method not in SAFE_METHODS)
            said = ", ".join(f"{count} {method}" for method, count in methods.most_common())
            notes.append(f"left out: {said}; --with-writes sends them, too")
        found = kept
    if not found:
        raise LoadError(f"{path} has no arrivals: it must be an access log, a HAR file or a recording of Greenroom's")
    first = min(one.moment for one in found)
    ordered = sorted((replace(one, moment=one.moment - first) for one in found), key=lambda one: one.moment)
    return Source(kind, tuple(ordered), tuple(notes))


def _parsed(text: str, path: Path) -> tuple[str, list[Arrival]]:
    block = _BLOCK.search(text)
    if block is not None or f'"{ARRIVALS_FORMAT}"' in text[:200]:
        return "recording", _recording(block[1] if block is not None else text, path)
    if text.lstrip().startswith("{"):
        try:
            said = json.loads(text)
        except ValueError:
            said = None  # lines of JSON
        if isinstance(said, dict) and "log" in said:
            return "HAR file", _har(said["log"], path)
    return "access log", list(_spread(_log(text)))


def _recording(text: str, path: Path) -> list[Arrival]:
    try:
        said = json.loads(text)
        if said.get("format") != ARRIVALS_FORMAT:
            raise LoadError(f"the recording {path} is of another version: {said.get('format')}, not {ARRIVALS_FORMAT}")
        return [
            Arrival(float(moment), "GET", str(route), int(status), float(seconds))
            for moment, route, status, seconds in said["arrivals"]
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise LoadError(f"the recording {path} is damaged: {exc}") from exc


def _har(log: Mapping[str, Any], path: Path) -> list[Arrival]:
    """Those to the host that most go to: a page's pictures from elsewhere are not the server's load."""
    try:
        entries = [(datetime.fromisoformat(one["startedDateTime"]).timestamp(), one) for one in log["entries"]]
        hosts = Counter(urlsplit(one["request"]["url"]).netloc for _, one in entries)
        host = hosts.most_common(1)[0][0] if hosts else ""
        return [_har_entry(at, one) for at, one in entries if urlsplit(one["request"]["url"]).netloc == host]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise LoadError(f"the HAR file {path} is damaged: {type(exc).__name__} {exc}") from exc


def _har_entry(at: float, entry: Mapping[str, Any]) -> Arrival:
    asked = entry["request"]
    parts = urlsplit(asked["url"])
    headers = tuple(
        (header["name"], header["value"])
        for header in asked.get("headers", ())
        if header["name"].lower() not in _HEADERS_NOT_PLAYED and not header["name"].startswith(":")
    )
    return Arrival(
        at,
        asked["method"],
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        int(entry.get("response", {}).get("status") or 0),
        float(entry["time"]) / 1000 if entry.get("time") else None,
        headers,
        (asked.get("postData") or {}).get("text", "").encode(),
    )


def _log(text: str) -> Iterator[Arrival]:
    for line in text.splitlines():
        if line.startswith("{"):
            yield from _json_line(line)
        elif found := _LOG_LINE.match(line):
            at = _log_time(found["at"])
            if at is not None and found["target"].startswith("/"):
                yield Arrival(at, found["method"], found["target"], int(found["status"]))


def _json_line(line: str) -> Iterator[Arrival]:
    """Read a line of an access log in JSON, by the usual names for time, method, path and status."""
    try:
        said = json.loads(line)
        at = next(said[name] for name in ("at", "time", "timestamp", "time_iso8601", "@timestamp") if name in said)
        moment = float(at) if isinstance(at, int | float) else datetime.fromisoformat(str(at)).timestamp()
        path = next(str(said[name]) for name in ("target", "path", "request_uri", "uri") if name in said)
        method = next((str(said[name]) for name in ("method", "request_method") if name in said), "GET")
        # Greenroom's line is written when the request ends.
        seconds = float(said["total_seconds"]) if "total_seconds" in said else None
        status = next((int(said[name]) for name in ("status", "status_code") if name in said), 0)
    except (ValueError, TypeError, StopIteration, AttributeError):
        return  # another kind of line: the error log goes to the same place
    if path.startswith("/"):
        yield Arrival(moment - (seconds or 0.0), method, path, status, seconds)


def _log_time(text: str) -> float | None:
    for form in ("%d/%b/%Y:%H:%M:%S %z", "%d/%b/%Y:%H:%M:%S"):
        try:
            return datetime.strptime(text, form).timestamp()
        except ValueError:
            continue
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _spread(arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
    """Those of a whole second evenly over it."""
    by_second: dict[float, list[Arrival]] = {}
    for one in arrivals:
        by_second.setdefault(one.moment, []).append(one)
    for moment, here in by_second.items():
        step = 1.0 / len(here) if moment == int(moment) else 0.0
        for number, one in enumerate(here):
            yield replace(one, moment=moment + (number + 0.5) * step) if step else one


def requests_of(
    source: Source, *, speed: float, fills: Mapping[str, Sequence[str]], headers: Mapping[str, str]
) -> tuple[tuple[float, Request], ...]:
    """The moments and requests to play, `speed` times as fast. Raises LoadError for a route that nothing fills.

    `fills` maps a route, or the name of a place in one (`slug` of `/boards/<slug>`), to values that are taken in turn.
    """
    if not speed > 0:
        raise LoadError("--speed must be more than 0: 2 plays it twice as fast")
    filler = _Filler(source, fills)
    made: dict[tuple[str, str, bytes, tuple[tuple[str, str], ...]], Request] = {}
    played = []
    for one in source.arrivals:
        name, path = filler.filled(one.path) if source.is_recording else (one.path.partition("?")[0], one.path)
        key = (one.method, path, one.body, one.headers)
        if key not in made:
            label = f"{one.method} {name}"
            made[key] = Request(one.method, path, {**dict(one.headers), **headers}, one.body, label)
        played.append((one.moment / speed, made[key]))
    return tuple(played)


class _Filler:
    """Paths for the patterns of a recording, and for requests whose route is not known: those of all others in turn."""

    def __init__(self, source: Source, fills: Mapping[str, Sequence[str]]) -> None:
        self._fills = fills
        self._turns: Counter[str] = Counter()
        routes = [one.path for one in source.arrivals if one.path not in UNKNOWN_ROUTES]
        self._routes = routes
        if not routes and not all(name in fills for name in {one.path for one in source.arrivals}):
            raise LoadError(
                "the recording knows no routes, only refusals and 'other': say what to ask with --map shed=/path and "
                "--map other=/path"
            )

    def filled(self, route: str) -> tuple[str, str]:
        """The route it counts under, and the path to ask."""
        if route in UNKNOWN_ROUTES and route not in self._fills:
            self._turns[""] += 1
            # A stride that is prime to most lengths, so that a burst of refusals gets the mix of all, not its start.
            route = self._routes[self._turns[""] * 7919 % len(self._routes)]
        if route in self._fills:
            return route, self._turn(route)
        path = _PLACE.sub(lambda place: self._turn(place[1], route), route)
        if not path.startswith("/"):
            raise LoadError(f"the recorded route {route!r} is no path: say what to ask with --map '{route}=/path'")
        return route, path

    def _turn(self, name: str, route: str = "") -> str:
        values = self._fills.get(name)
        if not values:
            raise LoadError(
                f"what is <{name}> in {route}? say --map {name}=VALUE, or --map '{route}=/path' (several: with commas)"
            )
        self._turns[name] += 1
        return values[self._turns[name] % len(values)]


def fills_of(texts: Sequence[str], file: Path | None = None) -> dict[str, list[str]]:
    """`--map slug=a,b` and a file of JSON with the same. Raises LoadError."""
    found: dict[str, list[str]] = {}
    if file is not None:
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            found = {str(k): [str(one) for one in (v if isinstance(v, list) else [v])] for k, v in said.items()}
        except (OSError, ValueError, AttributeError) as exc:
            raise LoadError(f"the mapping {file} cannot be read: {exc}") from exc
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name.strip():
            raise LoadError(f"--map {text!r} is not understood: write slug=a,b or '/boards/<slug>=/boards/a'")
        found[name.strip()] = [one.strip() for one in values.split(",")]
    return found


def recorded_as_json(source: Source) -> dict[str, Any]:
    """How it was: by route, and in all, for a report to show beside what was played."""
    routes: dict[str, list[Arrival]] = {}
    for one in source.arrivals:
        routes.setdefault(one.path if source.is_recording else one.path.partition("?")[0], []).append(one)
    return {
        "kind": source.kind,
        "all": _numbers(list(source.arrivals)),
        "routes": {
            f"GET {name}" if name not in UNKNOWN_ROUTES else name: _numbers(rows) for name, rows in routes.items()
        },
        "notes": list(source.notes),
    }


def _numbers(rows: list[Arrival]) -> dict[str, Any]:
    served = sorted(one.seconds for one in rows if one.seconds is not None and one.path != "shed")

    def milliseconds(share: float) -> float | None:
        return round(served[min(len(served) - 1, int(len(served) * share))] * 1000, 3) if served else None

    return {
        "requests": len(rows),
        "shed": sum(one.path == "shed" for one in rows),
        "errors": sum(one.status >= 500 and one.path != "shed" for one in rows),
        "unanswered": sum(one.status == 0 for one in rows),
        "p50_ms": milliseconds(0.5),
        "p99_ms": milliseconds(0.99),
    }
