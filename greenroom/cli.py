"""`greenroom`: the commands."""

import argparse
import os
import sys
from collections.abc import Sequence

from . import __version__, run_command, serving_command
from .doctor.command import add_to as add_doctor_command
from .errors import GreenroomError
from .load.commands import add_to as add_load_command
from .ops.commands import add_to as add_ops_commands
from .settings.documenting import about, env_template, markdown_table, rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 well, 2 the settings or the arguments are wrong."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["serve"]:  # what follows is gunicorn's to understand
            return serving_command.run(arguments[1:])
        if arguments[:1] == ["run"]:  # and this is any program's
            return run_command.run(arguments[1:])
        options = parser().parse_args(arguments)
        return int(options.run(options))
    except GreenroomError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `greenroom settings | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="greenroom", description="Plain blocking Flask, served on gevent.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="command")

    commands.add_parser("serve", help="serve an application: `greenroom serve shop:app`, with gunicorn's options")

    commands.add_parser(
        "run", help="run any program patched first of all, an agent's for example: `greenroom run -- ...`"
    )

    settings = commands.add_parser("settings", help="print every setting: name, default, what it may be, what it does")
    settings.add_argument("--env-template", action="store_true", help="as the lines of .env-template")
    settings.add_argument("--markdown", action="store_true", help="as the table of docs/settings.md")
    settings.set_defaults(run=run_settings)

    add_ops_commands(commands)
    add_load_command(commands)
    add_doctor_command(commands)
    return top


def run_settings(options: argparse.Namespace) -> int:
    if options.env_template:
        print(env_template())
    elif options.markdown:
        print(markdown_table())
    else:
        for row in rows():
            print(f"{row.name}={row.default}\n    {about(row)}")
    return 0
