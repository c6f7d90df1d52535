"""The commands `ops`, `top` and `stacks`."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GreenroomError
from ..settings import Settings, read_environment

if TYPE_CHECKING:
    from ..cli import Commands

if TYPE_CHECKING:
    from .client import Client


# Of Nagios: the word, and the exit code.
CHECKS = {"ok": ("OK", 0), "watch": ("WARNING", 1), "bad": ("CRITICAL", 2)}
UNKNOWN = 3
OLDEST_SECONDS = 15.0


def add_to(commands: "Commands") -> None:
    """Add them to the parser of `python -m greenroom`."""
    ops = commands.add_parser("ops", help="say where the ops page of the running server is, and whether it answers")
    _add_where(ops)
    ops.add_argument("--check", action="store_true", help="print the verdict; exit with 0 (ok), 1 (watch), 2 (bad), 3")
    ops.add_argument("--json", action="store_true", help="print the verdict as JSON")
    ops.set_defaults(run=run_ops)

    top = commands.add_parser("top", help="watch the running server in this terminal")
    _add_where(top)
    top.set_defaults(run=run_top)

    stacks = commands.add_parser("stacks", help="print all that the running server is doing, once, for a ticket")
    _add_where(stacks)
    stacks.set_defaults(run=run_stacks)


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--at", metavar="HOST:PORT", help="where the ops page is, instead of GREENROOM_OPS_BIND")


def run_ops(options: argparse.Namespace) -> int:
    client = find_client(options)
    if options.check:
        return check(client, as_json=options.json)
    verdict = client.verdict()
    print(json.dumps(verdict) if options.json else f"{client.url}/\n{verdict['sentence']}")
    return 0


def check(client: "Client", *, as_json: bool = False, now: Callable[[], float] = time.time) -> int:
    """Print the verdict in one line; return what cron and Nagios understand: 0, 1, 2, or 3 where nothing is known."""
    try:
        verdict = client.verdict()
        age = now() - float(verdict["at"])
        level = verdict["level"]
        sentence, do = verdict["sentence"], verdict.get("do") or ""
    except (GreenroomError, KeyError, TypeError, ValueError) as exc:
        print(f"UNKNOWN: {exc}")
        return UNKNOWN
    if age > OLDEST_SECONDS:
        print(f"UNKNOWN: the ops process has not looked for {age:.0f} s; then: {sentence}")
        return UNKNOWN
    word, code = CHECKS.get(level, ("UNKNOWN", UNKNOWN))
    print(json.dumps(verdict) if as_json else f"{word}: {sentence} {do}".strip())
    return code


def run_top(options: argparse.Namespace) -> int:
    client = find_client(options)
    try:
        from .top import run
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "rich":
            raise
        from .plain_top import run as run_plain

        return run_plain(client)
    return run(client)


def run_stacks(options: argparse.Namespace) -> int:
    print(find_client(options).everything(), end="")
    return 0


def find_client(options: argparse.Namespace) -> "Client":
    from .client import Client  # made of sockets, which another command patches first

    settings = Settings.read(read_environment(Path(".env")))
    if options.at:
        address = Settings(ops_bind=options.at).ops_address
        if address is None:
            raise GreenroomError(f"--at must be an address and a port, 127.0.0.1:8001 (got {options.at!r})")
    else:
        address = settings.ops_address
    if address is None:
        raise GreenroomError("the ops page is off: GREENROOM_OPS_BIND=off")
    if not address[1]:
        raise GreenroomError("GREENROOM_OPS_BIND leaves the port open; its log says which it is: pass it with --at")
    return Client(address, settings.ops_token, is_terminal=sys.stdout.isatty())
