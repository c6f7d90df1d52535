"""All goals of admission in one run, beside gthread and gevent: `python -m benchmarks.admission`.

    overload    1.1, 1.5, 3 and 10 times the peak; clients give up after 1 s, and after 5 s
    closed      50 and 200 users without think time
    balance     the workers' shares after bursts at start, HUP, TTIN and a worker that stood still

Each part is a command of its own, which has more options.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console

from . import balance, closed, machine, overload
from .machine import Pinning, this_machines_pinning, verdict
from .measuring import ending, wide_console

LEVELS = ("1.1", "1.5", "3", "10")
# By how long clients wait: the least share of the peak that is answered well, and the longest 99th percentile, if any.
GOALS: dict[float, tuple[float, float | None]] = {1.0: (0.85, 700.0), 5.0: (0.95, None)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of the closed loop (default: 3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each overload lasts (default: 10)")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    console, pinning = wide_console(160), this_machines_pinning()
    console.print(f"{machine.facts()}\nPinning: {pinning.note}.")

    def measure() -> bool:
        reached = [*overloads(options.seconds, pinning, console), *users(options.rounds, console), *shares()]
        console.print(f"{sum(reached)} of {len(reached)} goals reached")
        return all(reached)

    return ending(measure)


def overloads(seconds: float, pinning: Pinning, console: Console) -> Iterator[bool]:
    for patience, (least, most_ms) in GOALS.items():
        options = ["--no-sheds", "--seconds", str(seconds), "--patience", str(patience), "--levels", *LEVELS]
        results, _ = overload.run(overload.read_options(options), pinning, console)
        console.print(overload.table(results))
        for one in results:
            if one.server == "greenroom":
                what = f"patience of {patience:g} s, {one.level:g} times the peak:"
                yield verdict(f"{what} share of the peak", one.goodput_ratio, least=least)
                if most_ms is not None:
                    yield verdict(f"{what} p99 in ms", one.p99_ms or float("inf"), most=most_ms)


def users(rounds: int, console: Console) -> Iterator[bool]:
    cells = closed.run(closed.read_options(["--rounds", str(rounds)]))
    console.print(closed.table(cells, closed.SERVERS))
    for page, count in closed.keys(cells):
        share = closed.share_of_best(cells, (page, count)) or 0.0
        what = f"{count} users, {page}:"
        yield verdict(f"{what} share of the best of the others", share, least=closed.MOST_BEHIND)
        yield verdict(f"{what} no good answer", sum(cells[page, count, "greenroom"].errors.values()), most=0)


def shares() -> Iterator[bool]:
    for name in ("gevent", "greenroom"):
        reached = balance.judged(name, balance.read_options([]))
        if name == "greenroom":
            yield from reached


if __name__ == "__main__":
    sys.exit(main())
