"""`greenroom tune` beside a search over the settings, on four applications: `python -m benchmarks tune`.

    python -m benchmarks tune [--apps cpu,upstream,database,mixed] [--for 2s] [--rounds 2]

Each cell of a grid of settings is measured by find-capacity, then the settings that tune says; at the end the best
cell and tune's settings once more in turn, since the best of many is partly luck. The database allows 23 connections.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from greenroom.load import expectations
from greenroom.tune import model, tuning

from .database import database_running
from .servers import upstream_running

APP = "benchmarks.apps.tuned:app"
MAX_CONNECTIONS = 23
POOL_SETTING = "DB_POOL_SIZE"
SHARE = 0.9


@dataclass(frozen=True)
class Case:
    """An application and the settings that are searched, each with its values."""

    path: str
    expect: str
    grid: Mapping[str, tuple[str, ...]]


CASES = {
    "cpu": Case("/cpu", "p99<300ms", {model.WORKERS: ("1", "2", "3"), model.LIMIT: ("0", "4")}),
    "upstream": Case("/upstream", "p99<400ms", {model.WORKERS: ("1", "2", "3"), model.LIMIT: ("0", "16")}),
    "database": Case(
        "/database",
        "p99<300ms",
        {model.WORKERS: ("1", "2"), POOL_SETTING: ("2", "10", "20"), model.LIMIT: ("0",)},
    ),
    "mixed": Case("/mixed", "p99<300ms", {model.WORKERS: ("1", "2", "4", "6"), model.LIMIT: ("0",)}),
}


def cells(case: Case) -> Iterator[dict[str, str]]:
    """All combinations, but for those that ask the database for more than it allows."""
    for values in product(*case.grid.values()):
        cell = dict(zip(case.grid, values, strict=True))
        if int(cell.get(POOL_SETTING, "0")) * int(cell[model.WORKERS]) <= MAX_CONNECTIONS - 3:
            yield cell


def options_of(case: Case, length: str) -> argparse.Namespace:
    """The command's options; one worker and a pool of 2 is how it is now."""
    return argparse.Namespace(
        app=APP,
        url=case.path,
        expect=[case.expect],
        length=length,
        cores=None,
        memory_mb=None,
        max_connections=MAX_CONNECTIONS if case.path == "/database" else None,
        hosts=1,
        pool_setting=POOL_SETTING,
        quick=False,
        no_verify=False,
    )


def tuned(options: argparse.Namespace) -> dict[str, str]:
    """The settings that tune says, under the names of the environment."""
    names = {model.POOL: POOL_SETTING}
    return {names.get(one.name, one.name): one.proposed for one in tuning.tuned(options)}


@contextmanager
def surroundings(case: Case) -> Iterator[None]:
    """The upstream or database that the application finds in its environment."""
    before = dict(os.environ)
    with ExitStack() as stack:
        os.environ["WEB_CONCURRENCY"] = "1"
        if case.path in ("/upstream", "/mixed"):
            os.environ["UPSTREAM_URL"] = stack.enter_context(upstream_running())
        if case.path == "/database":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            os.environ["DATABASE_URL"], _ = stack.enter_context(database_running(folder / "postgres"))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def compare(name: str, length: str, rounds: int) -> bool:
    """Search, tune, and measure both in turn; whether tune's has nine tenths of the search's capacity."""
    case = CASES[name]
    options = options_of(case, length)
    expected = tuple(expectations.parse(one) for one in options.expect)

    def capacity(settings: Mapping[str, str]) -> float:
        return tuning.find_capacity(options, expected, settings) or 0.0

    with surroundings(case):
        found = []
        for cell in cells(case):
            found.append((capacity(cell), cell))
            print(f"{name:10} {shown(cell):60} {found[-1][0]:8.4g}/s", flush=True)
        best = max(found, key=lambda one: one[0])[1]
        said = tuned(options)
        turns = [(capacity(best), capacity(said)) for _ in range(rounds)]
    searched, proposed = (statistics.median(values) for values in zip(*turns, strict=True))
    share = proposed / searched if searched else 0.0
    print(f"{name:10} search {shown(best)}: {searched:.4g}/s")
    print(f"{name:10} tune   {shown(said) or 'as it is'}: {proposed:.4g}/s, {share:.0%} of the search's", flush=True)
    return share >= SHARE


def shown(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", default=",".join(CASES))
    parser.add_argument("--for", dest="length", default="2s")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    chosen = options.apps.split(",")
    if unknown := [name for name in chosen if name not in CASES]:
        parser.error(f"there is no application {unknown[0]}: {', '.join(CASES)}")
    return 0 if all([compare(name, options.length, options.rounds) for name in chosen]) else 1


if __name__ == "__main__":
    sys.exit(main())
