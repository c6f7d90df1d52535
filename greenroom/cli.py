"""`greenroom`: the commands."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TypeAlias

from . import __version__, run_command, serving_command, settings_command
from .doctor.command import add_to as add_doctor_command
from .errors import GreenroomError
from .load.commands import add_to as add_load_command
from .ops.commands import add_to as add_ops_commands
from .replacements.report import add_to as add_patched_command
from .tune.commands import add_to as add_tune_command

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 well, 2 the settings or the arguments are wrong."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["serve"]:  # what follows is gunicorn's to understand
            return serving_command.run(arguments[1:])
        if arguments[:1] == ["run"]:  # and this is any program's
            return run_command.run(arguments[1:])
        options, rest = parser().parse_known_args(arguments)
        if arguments[:1] == ["settings"]:
            options.rest = rest  # gunicorn's as well
        elif rest:
            parser().error(f"unrecognized arguments: {' '.join(rest)}")
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

    settings_command.add_to(commands)
    add_patched_command(commands)
    add_ops_commands(commands)
    add_load_command(commands)
    add_tune_command(commands)
    add_doctor_command(commands)
    return top
