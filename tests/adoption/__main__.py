"""`python -m tests.adoption [NAME ...]`: serve each application in its own environment, compare, write the table.

An environment is made once, under the folder that ADOPTION_FOLDER names, and used again; without names all are tried
and docs/adoption.md is written.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests

from .catalogue import APPLICATIONS, Application
from .recording import differences, record
from .serving import GREENROOM, GTHREAD, Failed, Server, services

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "adoption.md"
INSTALL_SECONDS = 900
HEAD = """\
# Tried on

Each row is a small real application in `tests/adoption/apps`, served unchanged under gunicorn's gthread worker and
under `greenroom serve`, with two workers: the same requests get the same answers, and no request is lost in a reload
and a stop. Made by `python -m tests.adoption`, Python {python}.

| library | version | same answers | reload and stop | to know |
|---|---|---|---|---|
"""


@dataclass
class Result:
    application: Application
    version: str = ""
    answers: list[str] = field(default_factory=list)
    lifecycle: list[str] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        return not self.answers and not self.lifecycle

    def row(self) -> str:
        first = "yes" if not self.answers else "; ".join(self.answers)[:200]
        second = "nothing lost" if not self.lifecycle else "; ".join(self.lifecycle)[:200]
        cells = (self.application.title, self.version, first, second, self.application.note)
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def environment(application: Application, folder: Path) -> Path:
    """The interpreter of the application's environment, with this checkout installed in it."""
    home = folder / application.name
    python = home / "bin" / "python"
    if not (home / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True, timeout=INSTALL_SECONDS)
        install = [python, "-m", "pip", "install", "--quiet", "flask", "requests", *application.requirements, ROOT]
        subprocess.run(install, check=True, timeout=INSTALL_SECONDS)
        (home / "made").touch()
    return python


def version(python: Path, application: Application) -> str:
    distribution = application.requirements[0].partition("[")[0].partition("=")[0].partition(">")[0]
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def tried(application: Application, python: Path) -> Result:
    result = Result(application, version(python, application))
    path = application.asks[0].path if application.asks[0].method == "GET" else "/no-such-page"
    recorded = []
    for way in (GTHREAD, GREENROOM):
        try:
            with services(python, application) as environ:
                server = Server(python, way, application, environ)
                try:
                    server.wait_ready("/no-such-page")
                    recorded.append(record(server.url, application.asks))
                    if way is GREENROOM:
                        result.lifecycle = server.reload_and_stop(path)
                        if "Traceback" in server.text() and not any("/fails/" in ask.path for ask in application.asks):
                            result.lifecycle.append(f"its log has a traceback, see {server.log}")
                finally:
                    server.stop()
        except (Failed, requests.RequestException) as exc:
            result.answers.append(f"{'gthread' if way is GTHREAD else 'greenroom'}: {exc}")
    if len(recorded) == 2:
        result.answers += differences(*recorded)
    return result


def main(names: Sequence[str]) -> int:
    chosen = [each for each in APPLICATIONS if not names or each.name in names]
    folder = Path(os.environ.get("ADOPTION_FOLDER") or tempfile.mkdtemp(prefix="adoption-venvs-"))
    results = []
    for application in chosen:
        result = tried(application, environment(application, folder))
        print(result.row(), flush=True)
        results.append(result)
    if not names:
        rows = "\n".join(result.row() for result in results)
        TABLE.write_text(HEAD.format(python=platform.python_version()) + rows + "\n")
    return 0 if all(result.is_well for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
