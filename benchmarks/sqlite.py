"""A small application with SQLite beside gthread, where its calls wait in C: `python -m benchmarks.sqlite`.

    page    opens a connection, reads a row and ten, closes it: Flask's tutorial
    each    a query for each of 50 rows
    write   opens a connection, changes a row, commits, closes it

Both servers run side by side on one core and are asked in turns by so many users who wait for each answer. The cost is
the worker's own CPU of a request, user and system, which others on the machine change least; the ratio is the median of
those of the turns. The goal: not more than MOST times that of gthread, and no errors.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import machine
from .client import Generator, Load
from .machine import running_on, this_machines_pinning
from .measuring import ending
from .servers import HOST, RunningServer, gunicorn, serving

APP = "benchmarks.apps.flask_sqlite:app"
BODY = b"done\n"
OTHER, OURS = "gthread", "greenroom"
THREADS = "8"
PAGES = {"page": "/", "each": "/each", "write": "/write"}
MOST = 1.3


@dataclass
class Turns:
    """All turns of both servers at one page."""

    microseconds: dict[str, list[float]] = field(default_factory=lambda: {OTHER: [], OURS: []})
    per_second: dict[str, list[float]] = field(default_factory=lambda: {OTHER: [], OURS: []})
    errors: dict[str, int] = field(default_factory=lambda: {OTHER: 0, OURS: 0})

    @property
    def ratio(self) -> float:
        pairs = zip(self.microseconds[OURS], self.microseconds[OTHER], strict=True)
        return statistics.median(ours / other for ours, other in pairs)

    @property
    def is_reached(self) -> bool:
        return self.ratio <= MOST and not self.errors[OURS]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sqlite", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--pages", nargs="+", default=list(PAGES), choices=list(PAGES), help="which pages")
    add("--users", type=int, default=8, help="users at a time (default: 8)")
    add("--seconds", type=float, default=2.0, help="how long each is asked in each turn (default: 2)")
    add("--rounds", type=int, default=5, help="default: 5")
    options = parser.parse_args(arguments)
    print(f"{machine.facts()}\nPinning: {this_machines_pinning().note}.")

    def measure() -> bool:
        found = run(options)
        print(f"{'':8}{OTHER + ' us':>14}{'per second':>12}{OURS + ' us':>14}{'per second':>12}{'ratio':>8}")
        for page, turns in found.items():
            cells = "".join(
                f"{statistics.median(turns.microseconds[name]):>14.0f}{statistics.median(turns.per_second[name]):>12,.0f}"
                for name in (OTHER, OURS)
            )
            errors = f"  errors: {turns.errors}" if any(turns.errors.values()) else ""
            print(f"{page:8}{cells}{turns.ratio:>8.2f}{errors}")
        return all(turns.is_reached for turns in found.values())

    return ending(measure)


def run(options: argparse.Namespace) -> dict[str, Turns]:
    pinning = this_machines_pinning()
    with contextlib.ExitStack() as stack:
        stack.enter_context(running_on(pinning.load))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [
            stack.enter_context(
                serving(
                    gunicorn(name, APP, {"GREENROOM_THREADS": THREADS, "SQLITE_PATH": str(folder / f"{name}.sqlite")}),
                    log=folder / f"{name}.log",
                    cores=pinning.server,
                    environment={},
                    ready_path="/",
                )
            )
            for name in (OTHER, OURS)
        ]
        found = {page: Turns() for page in options.pages}
        for number in range(options.rounds):
            for page, turns in found.items():
                for server in servers if number % 2 else reversed(servers):
                    ask(server, PAGES[page], options, turns)
    return found


def ask(server: RunningServer, path: str, options: argparse.Namespace, turns: Turns) -> None:
    used: list[float] = []
    look = lambda: used.append(server.cpu_seconds())  # noqa: E731
    load = Load(HOST, server.port, path, BODY, options.users, 0.3, options.seconds, 30.0)
    sample = Generator(load, at_start=look, at_end=look).run()
    name = server.server.name
    turns.microseconds[name].append((used[1] - used[0]) / max(1, sample.completed) * 1e6)
    turns.per_second[name].append(sample.requests_per_second)
    turns.errors[name] += sum(sample.errors.values())


if __name__ == "__main__":
    sys.exit(main())
