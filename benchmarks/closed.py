"""Latency for users who wait for each answer before they ask again: `python -m benchmarks.closed`.

So many users without think time on one worker on one core, for pages of some milliseconds of CPU, alone and mixed with
waits as for a database. All servers run side by side, and are measured in turn; a round is one turn of all.

A good answer is a 200 within GIVE_UP_SECONDS; one that is refused, cut off or later is not. The last column is
the share of the best of the others that Greenroom reaches: the goal is MOST_BEHIND, and no 503.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.table import Table

from . import machine
from .client import Generator, Load
from .machine import running_on, this_machines_pinning
from .measuring import ending, wide_console
from .servers import HOST, RunningServer, gunicorn, serving

APP = "tests.live.apps.overload:application"
BODY = b"done\n"
SERVERS = ("gthread", "gevent", "greenroom")
THREADS = "100"
PAGES = {
    "2 ms": "/work?cpu=2",
    "10 ms": "/work?cpu=10",
    "30 ms": "/work?cpu=30",
    "10 ms, a wait of 20": "/parts?cpu=10&wait=20",
    "2, 10, 30, half of them wait": "/mixed?wait=20",
}
CPU_SECONDS = dict(zip(PAGES, (0.002, 0.01, 0.03, 0.01, 0.014), strict=True))
# Each user is answered so many times. A server that works for many requests at once begins them before it is measured,
# and ends them within: 200 users of 30 ms, measured for 4 s, made 34.5 a second of gthread, where a core can do 33.
TURNS = 3
USERS = (50, 200)
GIVE_UP_SECONDS = 30.0
MOST_BEHIND = 0.97


@dataclass
class Cell:
    """All rounds of one server with so many users of one page."""

    per_second: list[float] = field(default_factory=list)
    per_cpu_second: list[float] = field(default_factory=list)  # which a neighbour on the core changes less
    p99_ms: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def goodput(self) -> float:
        return statistics.median(self.per_second)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(sys.argv[1:] if arguments is None else arguments)
    console = wide_console(140)
    console.print(f"{machine.facts()}\nPinning: {this_machines_pinning().note}.")

    def measure() -> bool:
        cells = run(options)
        console.print(table(cells, options.servers))
        return all(is_reached(cells, key) for key in keys(cells))

    return ending(measure)


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.closed", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--servers", nargs="+", default=list(SERVERS), help="worker classes to compare")
    add("--pages", nargs="+", default=list(PAGES), choices=list(PAGES), help="which pages")
    add("--users", nargs="+", type=int, default=list(USERS), help="how many users (default: 50 200)")
    add("--seconds", type=float, default=4.0, help="how long each is measured at least in each round (default: 4)")
    add("--rounds", type=int, default=3, help="default: 3")
    return parser.parse_args(arguments)


Key = tuple[str, int]
Cells = dict[tuple[str, int, str], Cell]


def run(options: argparse.Namespace) -> Cells:
    cells: Cells = {}
    pinning = this_machines_pinning()
    with contextlib.ExitStack() as stack:
        stack.enter_context(running_on(pinning.load))
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [
            stack.enter_context(
                serving(
                    gunicorn(name, APP, {"GREENROOM_THREADS": THREADS}),
                    log=logs / f"{name}.log",
                    cores=pinning.server,
                    environment={},
                    ready_path="/healthz",
                )
            )
            for name in options.servers
        ]
        for _ in range(options.rounds):
            for page in options.pages:
                for users in options.users:
                    for server in servers:
                        cell = cells.setdefault((page, users, server.server.name), Cell())
                        measure(server, page, users, options.seconds, cell)
    return cells


def measure(server: RunningServer, page: str, users: int, seconds: float, cell: Cell) -> None:
    seconds = max(seconds, TURNS * users * CPU_SECONDS[page])
    load = Load(HOST, server.port, PAGES[page], BODY, users, 1.0, seconds, GIVE_UP_SECONDS)
    used: list[float] = []
    look = lambda: used.append(server.cpu_seconds())  # noqa: E731
    sample = Generator(load, at_start=look, at_end=look).run()
    cell.per_cpu_second.append(sample.completed / max(used[1] - used[0], 1e-9))
    cell.per_second.append(sample.requests_per_second)
    if sample.latencies_ms:
        cell.p99_ms.append(sorted(sample.latencies_ms)[int(0.99 * len(sample.latencies_ms))])
    for what, count in sample.errors.items():
        cell.errors[what] = cell.errors.get(what, 0) + count


def keys(cells: Cells) -> list[Key]:
    return list(dict.fromkeys((page, users) for page, users, _ in cells))


def share_of_best(cells: Cells, key: Key) -> float | None:
    """Greenroom's goodput as a share of the best of the others; None where there is nothing to compare."""
    rates = {name: cell.goodput for (page, users, name), cell in cells.items() if (page, users) == key}
    ours = rates.pop("greenroom", None)
    return ours / max(rates.values()) if ours is not None and rates and max(rates.values()) else None


def is_reached(cells: Cells, key: Key) -> bool:
    share, ours = share_of_best(cells, key), cells.get((*key, "greenroom"))
    return (share is None or share >= MOST_BEHIND) and (ours is None or not ours.errors)


def table(cells: Cells, servers: Sequence[str]) -> Table:
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column("page", no_wrap=True)
    result.add_column("users", justify="right")
    for name in servers:
        result.add_column(f"{name}/s", justify="right")
        result.add_column("per CPU s", justify="right")
        result.add_column("p99 ms", justify="right")
        result.add_column("errors", justify="right")
    result.add_column("of the best", justify="right")
    for key in keys(cells):
        row = [key[0], str(key[1])]
        for name in servers:
            cell = cells[(*key, name)]
            p99 = f"{statistics.median(cell.p99_ms):.0f}" if cell.p99_ms else "-"
            row += [
                f"{cell.goodput:.1f}",
                f"{statistics.median(cell.per_cpu_second):.1f}",
                p99,
                str(sum(cell.errors.values())),
            ]
        share = share_of_best(cells, key)
        result.add_row(*row, "" if share is None else f"{share:.2f}")
    return result


if __name__ == "__main__":
    sys.exit(main())
