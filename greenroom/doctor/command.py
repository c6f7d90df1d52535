"""`greenroom doctor shop:app`: the options, and the exit code.

0  ready: nothing found at the level of --fail-on (a warning) or above
1  findings
2  it could not run
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GreenroomError
from . import accepted

if TYPE_CHECKING:
    from ..cli import Commands

READY, FINDINGS, COULD_NOT_RUN = 0, 1, 2
SHORTEST_SECONDS = 5.0


def add_to(commands: "Commands") -> None:
    """Add the command to the parser of `greenroom`."""
    parser = commands.add_parser(
        "doctor", help="say what an application will do on gevent: it is read, imported, and driven by a real worker"
    )
    parser.add_argument("app", nargs="?", default="", help="`module:name`, `module:factory()`; else FLASK_APP, app.py")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="gunicorn configuration to use")
    parser.add_argument(
        "--for", dest="seconds", type=float, default=60.0, metavar="SECONDS", help="how long it may take (60)"
    )
    parser.add_argument("--url", action="append", default=[], metavar="PATH", help="ask this too: /items/7?page=2")
    parser.add_argument(
        "--from",
        action="append",
        default=[],
        type=Path,
        dest="files",
        metavar="FILE",
        help="ask what an OpenAPI description, an access log, a HAR file or a recording has",
    )
    for name in ("--openapi", "--har", "--access-log", "--recording"):
        parser.add_argument(name, action="append", type=Path, dest="files", help=argparse.SUPPRESS)
    parser.add_argument(
        "--login",
        metavar="'POST /login BODY'",
        help="log in first, by a form or JSON (@FILE reads it from a file): routes behind a login are seen",
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="'Name: value'", help="send this as well: a token, a cookie"
    )
    parser.add_argument("--allow-writes", action="store_true", help="let the application write, and ask more than GET")
    parser.add_argument("--read-only", action="store_true", dest="is_reading_only", help="read, run nothing")
    parser.add_argument("--no-gains", action="store_true", help="leave out the comparison with sync and gthread")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the report as one HTML file as well")
    parser.add_argument(
        "--fail-on", choices=("note", "warning", "error"), default="warning", help="from which level on to exit with 1"
    )
    parser.add_argument("--accepted", type=Path, metavar="FILE", help="findings that are known: not shown, not counted")
    parser.add_argument(
        "--write-accepted", type=Path, metavar="FILE", help="write all findings above notes into such a file"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Raises GreenroomError when the arguments are wrong."""
    known = accepted.read(options.accepted) if options.accepted is not None else []
    if options.seconds < SHORTEST_SECONDS:
        raise GreenroomError(f"--for must be {SHORTEST_SECONDS:g} seconds or more (got {options.seconds:g})")
    for file in [*options.files, *([options.config] if options.config else [])]:
        if not file.is_file():
            raise GreenroomError(f"there is no file {file}")
    from ..load.building import headers_of

    headers = headers_of(options.header)
    app = options.app or _usual_app()
    # Imported only now: other commands need none of it.
    from .examination import Examination, Options
    from .output.page import page
    from .output.terminal import Progress, Terminal

    progress = Progress(sys.stderr, is_quiet=options.quiet or options.json or "CI" in os.environ)
    examination = Examination(
        Options(
            app=app,
            seconds=options.seconds,
            allow_writes=options.allow_writes,
            urls=options.url,
            files=options.files,
            configuration=options.config,
            is_reading_only=options.is_reading_only,
            has_gains=not options.no_gains,
            login=options.login or "",
            headers=headers,
        ),
        progress.tell,
    )
    with _ended_orderly():
        try:
            report = examination.run()
        except KeyboardInterrupt:
            print("Stopped; what it had started is ended.", file=sys.stderr)
            return COULD_NOT_RUN
        finally:
            progress.end()
    report.findings, report.accepted = accepted.split(report.findings, known)
    if report.accepted and not report.why:
        from .findings import verdict

        report.verdict = verdict(report.findings)
    if options.write_accepted is not None:
        options.write_accepted.write_text(accepted.written(report.findings))
    if options.html is not None:
        options.html.write_text(page(report, app))
    if options.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        Terminal().show(report)
    if report.why:
        return COULD_NOT_RUN
    from .findings import is_at_least

    return FINDINGS if any(is_at_least(one, options.fail_on) for one in report.findings) else READY


def _usual_app() -> str:
    from ..serving_command import app_of_folder
    from ..settings import read_env_files

    environ = {**read_env_files(Path.cwd()), **os.environ}
    return environ.get("WSGI_APP") or environ.get("FLASK_APP") or app_of_folder(Path.cwd())


@contextlib.contextmanager
def _ended_orderly() -> Iterator[None]:
    """SIGTERM and SIGHUP end it as Ctrl-C does: what it has started is ended first."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
