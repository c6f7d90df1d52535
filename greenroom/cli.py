"""`python -m greenroom`: the commands."""

import argparse
import dataclasses
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import __version__, importing
from .companion import python_module
from .errors import GreenroomError, SettingsError
from .ops.commands import add_to as add_ops_commands
from .settings import REFERENCE_APP, Row, Settings, read_environment, rows

# How long the application may take to say whether its settings are fine.
CHECK_SECONDS = 60


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

    add_ops_commands(commands)
    return top


def run_serve(options: argparse.Namespace) -> int:
    environ = read_environment(Path(".env"))
    if environ.get("WSGI_APP"):
        importing.prefer_pythonpath(environ, Path.cwd())
    settings = read_checked_settings(environ)
    if options.bind:
        settings = dataclasses.replace(settings, bind=options.bind)
    from . import patching

    patching.patch(settings)
    # Imported only now: it is made of sockets.
    from .serve import serve

    serve(settings)
    return 0


def read_checked_settings(environ: Mapping[str, str]) -> Settings:
    """The server's settings. Raises SettingsError with all that is wrong, also with the reference application's own."""
    problems: list[str] = []
    try:
        settings = Settings.read(environ)
    except SettingsError as exc:
        problems += exc.problems
    if importing.is_reference_app(environ.get("WSGI_APP") or REFERENCE_APP):
        # In a process of its own: here nothing may be imported before it is patched.
        command = python_module("app.config")
        checked = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False)
        if checked.returncode:
            problems += [line.removeprefix("  - ") for line in checked.stderr.splitlines()]
    if problems:
        raise SettingsError(problems)
    return settings


def run_settings(options: argparse.Namespace) -> int:
    if options.env_template:
        print(env_template())
    elif options.markdown:
        print(markdown_table())
    else:
        for row in rows():
            print(f"{row.name}={row.default}\n    {_about(row)}")
    return 0


def env_template() -> str:
    """The server's part of `.env-template`: every name, commented out, under its sentence."""
    blocks = []
    for row in rows():
        sentence = textwrap.wrap(_about(row), 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        blocks.append("\n".join([*sentence, f"#{row.name}={row.default}"]))
    return "\n\n".join(blocks)


def markdown_table() -> str:
    """The server's settings as the README shows them."""
    lines = ["| Setting | Default | Range | What it is for |", "|---|---|---|---|"]
    for row in rows():
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.name}` | {default} | {row.allowed} | {row.about} |")
    return "\n".join(lines)


def _about(row: Row) -> str:
    return row.about + (f" ({row.allowed})" if row.allowed else "")
