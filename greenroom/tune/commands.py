"""The command `greenroom tune`."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cli import Commands


def add_to(commands: "Commands") -> None:
    """Add it to the parser of `greenroom`."""
    parser = commands.add_parser(
        "tune",
        help="what to set: workers, limits, pools and timeouts, from what one request costs",
        description="Serve the application, measure what a request costs, propose settings, verify them; change none.",
    )
    parser.add_argument("app", help="as for `greenroom serve`: shop:app")
    parser.add_argument("--url", default="/", metavar="PATH", help="what is asked: '/search?q=a'")
    parser.add_argument("--expect", action="append", default=[], help="as for `greenroom load`: p99<300ms")
    parser.add_argument("--for", dest="length", default="3s", metavar="TIME", help="of each trial of a rate")
    parser.add_argument("--cores", type=int, help="to use, instead of those that this process may use")
    parser.add_argument("--memory-mb", type=int, help="for all workers, instead of most of what is free")
    parser.add_argument("--max-connections", type=int, help="of the database, instead of what DATABASE_URL's says")
    parser.add_argument("--hosts", type=int, default=1, help="machines that share the database")
    parser.add_argument("--pool-setting", metavar="NAME", help="the environment variable that sets your pool's size")
    parser.add_argument("--quick", action="store_true", help="do not try the two nearest alternatives")
    parser.add_argument("--no-verify", action="store_true", help="only propose")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from .tuning import run as run_tune

    return run_tune(options)
