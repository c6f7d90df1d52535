"""`greenroom`: the commands."""

import argparse
import sys
import textwrap
from collections.abc import Sequence

from . import __version__, serving_command
from .doctor.command import add_to as add_doctor_command
from .errors import GreenroomError
from .ops.commands import add_to as add_ops_commands
from .settings import Row, rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 well, 2 the settings or the arguments are wrong."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["serve"]:  # what follows is gunicorn's to understand
            return serving_command.run(arguments[1:])
        options = parser().parse_args(arguments)
        return int(options.run(options))
    except GreenroomError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="greenroom", description="Plain blocking Flask, served on gevent.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="command")

    commands.add_parser("serve", help="serve an application: `greenroom serve shop:app`, with gunicorn's options")

    settings = commands.add_parser("settings", help="print every setting: name, default, what it may be, what it does")
    settings.add_argument("--env-template", action="store_true", help="as the lines of .env-template")
    settings.add_argument("--markdown", action="store_true", help="as the README's table")
    settings.set_defaults(run=run_settings)

    add_ops_commands(commands)
    add_doctor_command(commands)
    return top


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
