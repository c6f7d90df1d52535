"""The requests of a run: what they ask, how often each, and what is expected of their answers."""

import csv
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypedDict
from urllib.parse import quote, urlencode

from .target import Target
from .units import LoadError

USER_AGENT = "greenroom-load"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer as a check sees it. `body` is empty unless some check of the request reads it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Check:
    """Something that must be true of an answer; `text` names it in the report."""

    text: str
    holds: Callable[[Answer], bool]
    reads_body: bool = True


@dataclass(frozen=True)
class Request:
    """One kind of request. `events`: how many server-sent events it waits for before it closes; 0: no event stream."""

    method: str = "GET"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    name: str = ""
    weight: float = 1.0
    checks: tuple[Check, ...] = ()
    events: int = 0

    def filled(self, values: Mapping[str, object]) -> "Request":
        """With `{name}` replaced by its value: encoded in the path, as it is elsewhere."""
        return replace(
            self,
            name=self.name or f"{self.method} {self.path}",
            path=_PLACE.sub(lambda found: quote(_value(values, found[1]), safe=""), self.path),
            headers={
                name: _PLACE.sub(lambda found: _value(values, found[1]), text) for name, text in self.headers.items()
            },
            body=_PLACE.sub(lambda found: _value(values, found[1]), self.body.decode("latin-1")).encode("latin-1")
            if b"{" in self.body
            else self.body,
        )

    @property
    def places(self) -> set[str]:
        """The names in curly brackets that a row of values must fill."""
        texts = [self.path, self.body.decode("latin-1"), *self.headers.values()]
        return {name for text in texts for name in _PLACE.findall(text)}


def _value(values: Mapping[str, object], name: str) -> str:
    return str(values[name]) if name in values else "{" + name + "}"


class Asked(TypedDict, total=False):
    """What `request` takes by name, for those that hand it on."""

    headers: Mapping[str, str] | None
    body: bytes | str
    json_body: object
    form: Mapping[str, str] | None
    name: str
    weight: float
    checks: Sequence[Check]
    events: int


def request(
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | str = b"",
    json_body: object = None,
    form: Mapping[str, str] | None = None,
    name: str = "",
    weight: float = 1.0,
    checks: Sequence[Check] = (),
    events: int = 0,
) -> Request:
    """A request as scenario files write it."""
    said = dict(headers or {})
    if json_body is not None:
        body = json.dumps(json_body)
        said.setdefault("Content-Type", "application/json")
    elif form is not None:
        body = urlencode(form)
        said.setdefault("Content-Type", "application/x-www-form-urlencoded")
    raw = body.encode() if isinstance(body, str) else body
    return Request(method.upper(), path, said, raw, name, weight, tuple(checks), events)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as it goes over the wire."""

    name: str
    raw: bytes
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    checks: tuple[Check, ...]
    events: int
    reads_body: bool
    is_head: bool


def prepare(one: Request, target: Target, shared: Mapping[str, str], *, closes: bool = False) -> Prepared:
    """`shared` are headers of all requests: a login's cookie, say. Raises LoadError for what is no HTTP."""
    if not _TOKEN.fullmatch(one.method):
        raise LoadError(f"{one.method!r} is no method: write GET or POST")
    path = quote(one.path.partition("#")[0] or "/", safe="/?&=%:@!$'()*+,;~-._[]{}|^")
    if not path.startswith("/"):
        raise LoadError(f"the path {one.path!r} must begin with /")
    headers = {"Host": target.authority, "User-Agent": USER_AGENT, "Accept": "*/*", **shared, **one.headers}
    if one.body or one.method in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = str(len(one.body))
    if closes:
        headers["Connection"] = "close"
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or "\n" in value or "\r" in value:
            raise LoadError(f"{name}: {value!r} is no header: write 'Name: value', in one line")
    lines = [f"{one.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    raw = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + one.body
    return Prepared(
        one.name or f"{one.method} {one.path.partition('?')[0]}",
        raw,
        one.method,
        path,
        tuple(headers.items()),
        one.body,
        one.checks,
        one.events,
        any(check.reads_body for check in one.checks),
        one.method == "HEAD",
    )


def follow(prepared: Prepared, path: str, status: int, target: Target, *, closes: bool) -> Prepared:
    """The request to which an answer of 3xx leads: GET, except after 307 and 308."""
    keeps = status in (307, 308) or prepared.method in ("GET", "HEAD")
    dropped = {"host", "content-length", "connection"} | (set() if keeps else {"content-type"})
    headers = {name: value for name, value in prepared.headers if name.lower() not in dropped}
    one = Request(
        prepared.method if keeps else "GET",
        path,
        headers,
        prepared.body if keeps else b"",
        prepared.name,
        1.0,
        prepared.checks,
        prepared.events,
    )
    return prepare(one, target, {}, closes=closes)


class Maker(Protocol):
    """A kind of request that is made anew for each, from values."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    def made(self, values: Mapping[str, object]) -> Request: ...


def choices(
    kinds: Sequence[Request | Maker],
    rows: Sequence[Mapping[str, Any]],
    shared: Mapping[str, Any],
    prepared: Callable[[Request], Prepared],
    chance: random.Random,
) -> Iterator[Prepared]:
    """Requests without end: each kind as often as its weight says, the rows of values in turn.

    `shared` are values that all have. Raises LoadError at once for what can be known now.
    """
    if sum(one.weight for one in kinds) <= 0 or any(one.weight < 0 for one in kinds):
        raise LoadError("no request has a weight above 0")
    known = {*(rows[0] if rows else ()), *shared}
    for one in kinds:
        if rows and isinstance(one, Request) and (missing := sorted(one.places - known)):
            raise LoadError(f"the values have no column {missing[0]!r}, which a request has in curly brackets")
    fixed = [
        prepared(one) if isinstance(one, Request) and not (known and one.places) else None  # the same each time
        for one in kinds
    ]
    return _choices(kinds, fixed, rows or [{}], shared, prepared, chance)


def _choices(
    kinds: Sequence[Request | Maker],
    fixed: Sequence[Prepared | None],
    rows: Sequence[Mapping[str, Any]],
    shared: Mapping[str, Any],
    prepared: Callable[[Request], Prepared],
    chance: random.Random,
) -> Iterator[Prepared]:
    only = fixed[0] if len(fixed) == 1 else None
    while only is not None:
        yield only
    weights = [one.weight for one in kinds]
    turn = 0
    while True:
        for index in chance.choices(range(len(kinds)), weights, k=64):
            ready = fixed[index]
            if ready is None:
                values = {**shared, **rows[turn % len(rows)]}
                turn += 1
                kind = kinds[index]
                ready = prepared(kind.filled(values) if isinstance(kind, Request) else kind.made(values))
            yield ready


def rows_of(path: Path) -> tuple[dict[str, str], ...]:
    """The rows of a CSV file whose first line has the names. Raises LoadError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = tuple(dict(row) for row in csv.DictReader(file, strict=True))
    except (OSError, csv.Error, UnicodeDecodeError) as exc:
        raise LoadError(f"the values {path} cannot be read: {exc}") from exc
    if not found or any(None in row or None in row.values() for row in found):
        raise LoadError(f"the values {path} must have a line of names, and as many values in each line below it")
    return found
