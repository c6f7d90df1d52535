"""What a report says, as `--json` prints it and the page and the terminal show it."""

from typing import TypedDict


class FindingRow(TypedDict):
    """`line` 0: it is about no line; `file` is below the working directory where it is in it."""

    level: str  # note, warning, error
    rule: str
    file: str
    line: int
    says: str
    do: str


class Rate(TypedDict):
    requests_per_second: float
    p95_seconds: float


class RouteRow(TypedDict):
    """A route that was driven, and what it gains; `rates` by the kind of server."""

    route: str
    place: str
    statuses: list[int]
    seconds: float
    computes_seconds: float
    at_once: int
    rates: dict[str, Rate]
    gains: str


class SkippedRow(TypedDict):
    what: str
    why: str


class Document(TypedDict):
    verdict: str
    findings: list[FindingRow]
    routes: list[RouteRow]
    skipped: list[SkippedRow]


class ImportFacts(TypedDict):
    seconds: float
    mb: float
    seconds_unpatched: float
    threads: int


# `import` is no name that a class may have.
Facts = TypedDict(
    "Facts",
    {"import": ImportFacts, "differs": list[str], "cores": int, "unseen": str, "seconds": float},
    total=False,
)


class Engine(TypedDict):
    """An engine of SQLAlchemy's that the import has made; `most`: connections that its database allows, 0: unknown."""

    dialect: str
    driver: str
    size: int
    overflow: int
    names_driver: bool
    most: int
