"""The part of docs/adoption.md that says how the libraries' own tests did."""

import platform
from pathlib import Path

from .catalogue import LIBRARIES, Library
from .outcomes import not_allowed, read, worse

PAGE = Path(__file__).parents[2] / "docs" / "adoption.md"
HEADING = "## Their own tests, patched\n"
HEAD = """
`python -m tests.libraries` runs each library's own tests, from its source distribution, in a plain process and in one
that `pytest -p greenroom.pytest` patches first of all. No test that is well in the first may be worse in the second.
Those that fail in both want what was not there (Docker, a network, files of the repository), older libraries, or that
gevent is not installed. Python {python}.

| library | tests | well in a plain process | well, patched | worse, patched |
|---|---|---|---|---|
"""
TAIL = """
SQLAlchemy, psycopg2, requests and urllib3 are compared by `python -m tests.peers`. The source distributions of Dash,
ddtrace, Flask-Mail, Flask-Session, boto3 and MLflow have no tests, or next to none; PyMySQL's are of logins to MySQL 8
alone. Where a part is named, the others take too long here, or want servers that are not here. Left out are one test of
New Relic's, whose threads turn and never wait (docs/limits.md), and Celery's 60 of its waits under gevent and eventlet.
"""


def reports(folder: Path, library: Library) -> tuple[Path, Path]:
    """Of the plain run and of the patched one."""
    return folder / f"{library.distribution}.plain.xml", folder / f"{library.distribution}.patched.xml"


def row(folder: Path, library: Library) -> str:
    """The library's row; "" where one of its runs is missing."""
    plain, patched = map(read, reports(folder, library))
    sources = sorted((folder / "sources").glob(f"{library.distribution}-[0-9]*"))
    if not plain or not patched or not sources:
        return ""
    failing = worse(plain, patched)
    found = not_allowed(library.distribution, failing)
    said = f"{len(found)}" + (f" ({len(failing) - len(found)} allowed)" if len(failing) > len(found) else "")
    counts = [len(plain), *(sum(not outcome.is_bad for outcome in way.values()) for way in (plain, patched))]
    name, _, version = sources[-1].name.rpartition("-")
    part = f", {library.part}" if library.part else ""
    return "| " + " | ".join([f"{name} {version}{part}", *map(str, counts), said]) + " |"


def write(folder: Path) -> None:
    """Write that part of the page. Of libraries that were not run in `folder` it keeps the rows that it has."""
    before, _, said = PAGE.read_text().partition(f"\n{HEADING}")
    rows = [row(folder, library) or kept(said, library) for library in LIBRARIES]
    text = (
        HEADING + HEAD.format(python=platform.python_version()) + "".join(each + "\n" for each in rows if each) + TAIL
    )
    PAGE.write_text(before + "\n" + text)


def kept(said: str, library: Library) -> str:
    """The library's row on the page; "" where it has none."""
    lines = (line for line in said.splitlines() if line.startswith(f"| {library.distribution} "))
    return next(lines, "")
