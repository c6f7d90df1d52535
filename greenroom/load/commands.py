"""The command `greenroom load`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .units import LoadError

if TYPE_CHECKING:
    from ..cli import Commands

HELD_CODES = "exit status: 0 held, 1 not held, 2 could not run, 3 not valid (the generator was the limit)"


def add_to(commands: "Commands") -> None:
    """Add it to the parser of `greenroom`."""
    parser = commands.add_parser(
        "load",
        help="how much can it take: open-loop load with thresholds, capacity, and what limits it",
        description="Send requests at planned moments, whatever the server does, and judge what came back.",
        epilog=HELD_CODES,
    )
    parser.add_argument("url", nargs="?", help="where the load goes: http://127.0.0.1:8000/search")
    _add_pace(parser)
    _add_requests(parser)
    _add_connection(parser)
    _add_judging(parser)
    parser.set_defaults(run=run)


def _add_pace(parser: argparse.ArgumentParser) -> None:
    pace = parser.add_argument_group("how much, how long")
    pace.add_argument("--rate", help="requests a second: 200, '10..500/s over 60s', '100,200/s each 30s', and more")
    pace.add_argument("--for", dest="length", metavar="TIME", help="how long: 30s (the default), 2m")
    pace.add_argument("--find-capacity", action="store_true", help="search the highest rate that holds; --for: a trial")
    pace.add_argument("--highest", type=float, default=1e6, metavar="RATE", help="of --find-capacity: no further")
    pace.add_argument(
        "--arrivals", choices=("poisson", "constant"), help="default: poisson; to find a capacity constant"
    )
    pace.add_argument("--users", type=int, default=0, help="closed model instead: so many, who wait for each answer")
    pace.add_argument(
        "--pause", default="0s", metavar="TIME", help="of each user between an answer and the next request"
    )
    pace.add_argument(
        "--from", dest="arrivals_from", type=Path, metavar="FILE", help="arrivals of an access log or HAR"
    )
    pace.add_argument("--replay", type=Path, metavar="FILE", help="arrivals of a recording of the flight recorder")
    pace.add_argument("--against", metavar="URL", help="where --replay goes")
    pace.add_argument("--speed", type=float, default=1.0, help="of --from and --replay: 2 is twice as fast")
    pace.add_argument("--with-writes", action="store_true", help="play POST, PUT and so on of a log, too")
    pace.add_argument("--map", action="append", default=[], metavar="NAME=VALUE", help="slug=a,b or '/x/<slug>=/x/a'")
    pace.add_argument("--map-file", type=Path, metavar="FILE", help="the same as JSON: {NAME: [VALUE, ...]}")
    pace.add_argument("--seed", type=int, default=1, help="of the random arrivals; the same seed, the same moments")


def _add_requests(parser: argparse.ArgumentParser) -> None:
    asked = parser.add_argument_group("what is asked")
    asked.add_argument("--method", default="", help="GET, or POST when there is a body")
    asked.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="may be given many times")
    asked.add_argument("--body", help="of the request; @FILE reads it from a file")
    asked.add_argument("--also", action="append", default=[], metavar="'[WEIGHT] METHOD /PATH [BODY]'", help="another")
    asked.add_argument("--values", type=Path, metavar="FILE", help="CSV; {name} in path, header or body is its column")
    asked.add_argument("--login", metavar="'POST /login BODY'", help="first; its cookies go with every request")
    asked.add_argument(
        "--scenario", type=Path, metavar="FILE", help="a Python file: a function for each kind of request"
    )
    asked.add_argument("--events", type=int, default=0, help="server-sent events to wait for; the first is the default")
    asked.add_argument(
        "--check", action="append", default=[], help="of each answer: status=200, body~TEXT, json.KEY=VALUE"
    )


def _add_connection(parser: argparse.ArgumentParser) -> None:
    wire = parser.add_argument_group("how it is sent")
    wire.add_argument("--timeout", default="10s", metavar="TIME", help="after its planned moment a request is given up")
    wire.add_argument("--connections", type=int, default=0, help="at most so many at once; default: as many as needed")
    wire.add_argument("--new-connections", action="store_true", help="one for each request, instead of keep-alive")
    wire.add_argument("--largest-answer", type=float, default=10, metavar="MB", help="a larger one is an error; 10")
    wire.add_argument("--http2", action="store_true", help="HTTP/2: with TLS, or without it with prior knowledge")
    wire.add_argument("--no-follow", action="store_true", help="take a redirect for the answer")
    wire.add_argument("--insecure", action="store_true", help="do not verify the certificate")
    wire.add_argument("--ca", default="", metavar="FILE", help="certificates to trust")
    wire.add_argument(
        "--i-may-load-this", action="store_true", help="the target is neither local nor private, and mine"
    )


def _add_judging(parser: argparse.ArgumentParser) -> None:
    judged = parser.add_argument_group("what is expected, and what is written")
    judged.add_argument(
        "--expect", action="append", default=[], help="p99<300ms, errors<0.1%%, rate>190/s, p95[NAME]<1s"
    )
    judged.add_argument(
        "--abort-on-fail", action="store_true", help="stop as soon as an expectation cannot hold any more"
    )
    judged.add_argument("--ops", metavar="URL", help="the target's ops page; found by itself on this machine")
    judged.add_argument("--token", help="of the ops page, instead of GREENROOM_OPS_TOKEN")
    judged.add_argument("--json", type=Path, metavar="FILE", help="the whole result")
    judged.add_argument("--html", type=Path, metavar="FILE", help="one page with plots")
    judged.add_argument("--compare", nargs="+", type=Path, metavar="FILE", help="results of --json, side by side")
    judged.add_argument("--locustfile", type=Path, metavar="FILE", help="write one that asks the same; nothing is run")
    judged.add_argument("--locust-results", type=Path, metavar="FILE", help="report what Locust's --csv saved")
    judged.add_argument("--live", choices=("auto", "lines", "off"), default="auto", help="what is shown meanwhile")


def run(options: argparse.Namespace) -> int:
    from .running import run as run_load

    try:
        return run_load(options)
    except KeyboardInterrupt:
        raise LoadError("interrupted before anything was measured") from None


def warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
