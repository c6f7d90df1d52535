"""`python -m tests.adoption [NAME ...]`: serve each application in environments of its own, compare, write the table.

Environments are made once, under the folder that ADOPTION_FOLDER names, and used again with this checkout installed
anew. What came of each application is kept there too, so that one can be tried again without the others;
docs/adoption.md is written as soon as there is something of each.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests

from .catalogue import APPLICATIONS
from .environments import SETS, environment, version, wheel
from .model import Application
from .recording import differences, failures, record
from .serving import GREENROOM, GTHREAD, Failed, Server, services

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "adoption.md"
HEAD = """\
# Tried on

Each row is a small real application in `tests/adoption/apps`, served unchanged under gunicorn's gthread worker and
under `greenroom serve`, with two workers: the same requests get the same answers, none of them fails, and no request is
lost in a reload and a stop. Once with the newest versions, once with the oldest that we support (`tests/matrix`)
of gunicorn, gevent, Flask, Werkzeug, requests, urllib3 and SQLAlchemy, and the newest of the library that accepts them.
Made by `python -m tests.adoption`, Python {python}.

| library | version | newest set | with the oldest set | to know |
|---|---|---|---|---|
"""


@dataclass
class Result:
    """What came of one application with one set of versions."""

    version: str = ""
    answers: list[str] = field(default_factory=list)
    lifecycle: list[str] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        return not self.answers and not self.lifecycle

    def cell(self) -> str:
        return "same answers, nothing lost" if self.is_well else "; ".join([*self.answers, *self.lifecycle])[:200]


def tried(application: Application, python: Path) -> Result:
    result = Result(version(python, application))
    recorded = []
    for way in (GTHREAD, GREENROOM):
        name = "gthread" if way is GTHREAD else "greenroom"
        try:
            with services(python, application) as environ:
                server = Server(python, way, application, environ)
                try:
                    server.wait_ready("/no-such-page")
                    recorded.append(record(server.url, application.asks))
                    result.answers += [f"{name}: {failure}" for failure in failures(application.asks, recorded[-1])]
                    if way is GREENROOM:
                        result.lifecycle = server.reload_and_stop(path_of(application))
                        if "Traceback" in server.text() and not any(ask.fails for ask in application.asks):
                            result.lifecycle.append(f"its log has a traceback, see {server.log}")
                finally:
                    server.stop()
        except (Failed, requests.RequestException) as exc:
            result.answers.append(f"{name}: {exc}")
    if len(recorded) == 2:
        result.answers += differences(*recorded)
    return result


def path_of(application: Application) -> str:
    """What is asked again and again while the server reloads."""
    paths = (ask.path for ask in application.asks if ask.method == "GET" and not ask.fails)
    return next(paths, "/no-such-page")


def row(application: Application, newest: Result, oldest: Result | None) -> str:
    old = f"{oldest.version}: {oldest.cell()}" if oldest else application.not_oldest
    cells = (application.title, newest.version, newest.cell(), old, application.note)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.adoption", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the applications to try; all where none is named")
    parser.add_argument("--set", choices=SETS, action="append", help="of versions; both where none is named")
    options = parser.parse_args(arguments)
    chosen = [each for each in APPLICATIONS if not options.names or each.name in options.names]
    if unknown := set(options.names) - {each.name for each in chosen}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(a.name for a in APPLICATIONS)}")
    folder = Path(os.environ.get("ADOPTION_FOLDER") or tempfile.mkdtemp(prefix="adoption-venvs-")).resolve()
    ours = wheel(folder)
    is_well = True
    for application in chosen:
        for versions in options.set or SETS:
            if versions == "oldest" and application.not_oldest:
                continue
            try:
                result = tried(application, environment(application, versions, folder, ours))
            except subprocess.CalledProcessError as exc:
                result = Result(answers=[f"its environment can't be made: {exc}"])
            print(f"{application.title} ({versions}) {result.version}: {result.cell()}", flush=True)
            (folder / f"{application.name}.{versions}.json").write_text(json.dumps(dataclasses.asdict(result)))
            is_well = is_well and result.is_well
    write_table(folder)
    return 0 if is_well else 1


def write_table(folder: Path) -> None:
    rows = []
    for application in APPLICATIONS:
        kept = [folder / f"{application.name}.{versions}.json" for versions in SETS]
        newest, oldest = (Result(**json.loads(path.read_text())) if path.exists() else None for path in kept)
        if newest is None or (oldest is None and not application.not_oldest):
            return
        rows.append(row(application, newest, oldest))
    # Below it is another table, which `python -m tests.libraries` writes.
    _, heading, rest = TABLE.read_text().partition("\n## ")
    TABLE.write_text(HEAD.format(python=platform.python_version()) + "\n".join(rows) + "\n" + heading + rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
