"""`python -m greenroom`: the commands."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__, importing, patching
from .errors import GreenroomError
from .settings import Settings, read_environment, rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 well, 2 the settings or the arguments are wrong."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except GreenroomError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m greenroom", description="Plain blocking Flask, served on gevent.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="command")

    serve = commands.add_parser("serve", help="serve with gevent's own WSGI server, where gunicorn can't run")
    serve.add_argument("--bind", help="address to listen on, instead of GREENROOM_BIND")
    serve.set_defaults(run=run_serve)

    settings = commands.add_parser("settings", help="print every setting: name, default, what it may be, what it does")
    settings.add_argument("--env-template", action="store_true", help="as the lines of .env-template")
    settings.add_argument("--markdown", action="store_true", help="as the README's table")
    settings.set_defaults(run=run_settings)
    return top


def run_serve(options: argparse.Namespace) -> int:
    environ = read_environment(Path(".env"))
    settings = Settings.read(environ)
    if options.bind:
        settings = dataclasses.replace(settings, bind=options.bind)
    patching.patch(settings)
    if environ.get("WSGI_APP"):
        importing.prefer_pythonpath(environ, Path.cwd())
    # Imported only now: it is made of sockets.
    from .serve import serve

    serve(settings)
    return 0


def run_settings(options: argparse.Namespace) -> int:
    for row in rows():
        if options.env_template:
            print(f"# {row.about} ({row.allowed})\n#{row.name}={row.default}\n")
        elif options.markdown:
            print(f"| `{row.name}` | `{row.default}` | {row.allowed} | {row.about} |")
        else:
            print(f"{row.name}={row.default}\n    {row.about} ({row.allowed})")
    return 0
