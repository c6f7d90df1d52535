"""Servers that are asked for more than they can do: `python -m benchmarks.overload`.

    for each server: its peak (a closed loop of PEAK_CLIENTS)
    for each level:  rest ──> level x peak ──> rest          open loop, clients who give up after --patience
                              good answers, their p99        how soon all is well again

One worker on one core, the load on another. A request computes for --cpu and waits for --wait milliseconds. A good
answer is a 200 before the client gives up. Recovered: the first moment after the drop from which, for a second, nine of
ten requests are answered well and none waits 0.3 s longer than it has to.

At last, for Greenroom: how many plain 503s a worker writes in a second of its core's time.
"""

import argparse
import json
import math
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from . import machine
from .client import Generator, Load
from .machine import CoreClock, Pinning, running_on, this_machines_pinning
from .measuring import ending, wide_console
from .openloop import OpenLoop, Phase, Slot
from .servers import HOST, RunningServer, ServerFailed, ServerUnderTest, gunicorn, serving

APP = "tests.live.apps.overload:application"
BODY = b"done\n"
SERVERS = ("gthread", "gevent", "greenroom")
THREADS = "100"  # of gthread
LEVELS = (0.9, 1.1, 1.5, 3.0, 10.0)
REST = 0.5
REST_SECONDS = 3.0
AFTER_SECONDS = 6.0
PEAK_CLIENTS = 10
PEAK_SECONDS = 4.0
GIVE_UP_SECONDS = 1.0
RECOVERED_RATIO = 0.9
STEP_SECONDS = 0.1
SLOW_SECONDS = 0.3
SHED_CLIENTS = 50
SHED_SECONDS = 4.0


@dataclass(frozen=True)
class Result:
    """One server's result at one level. Latencies are of good answers; None: there was none, or not in time."""

    server: str
    level: float
    kept: bool
    peak_per_second: float
    offered_per_second: float
    good_per_second: float
    goodput_ratio: float
    p50_ms: float | None
    p99_ms: float | None
    shed_ratio: float
    shed_p99_ms: float | None
    failed_ratio: float
    recovered_seconds: float | None
    generator_cpu_ratio: float
    generator_late_ms: float
    others_on_core_ratio: float | None


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(sys.argv[1:] if arguments is None else arguments)
    console = wide_console(160)
    pinning = this_machines_pinning()
    console.print(f"{machine.facts()}\nPinning: {pinning.note}.")

    def measure() -> None:
        results, sheds = run(options, pinning, console)
        console.print(table(results))
        if sheds is not None:
            console.print(f"plain 503s: {sheds:,.0f} a second of the worker's core")
        if options.json:
            content = {"results": [asdict(one) for one in results], "sheds_per_core_second": sheds}
            options.json.write_text(json.dumps(content, indent=2) + "\n")

    return ending(measure)


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--servers", nargs="+", default=list(SERVERS), help="worker classes to compare")
    add("--levels", nargs="+", type=float, default=list(LEVELS), help="multiples of the peak")
    add("--seconds", type=float, default=10.0, help="how long each level lasts (default: 10)")
    add("--path", default="/work", choices=("/work", "/late", "/parts"), help="computes first, waits first, or both")
    add("--cpu", type=float, default=10.0, help="milliseconds that a request computes (default: 10)")
    add("--wait", type=float, default=50.0, help="milliseconds that it waits (default: 50)")
    add("--new-connections", action="store_true", help="a connection for each request")
    add("--patience", type=float, default=GIVE_UP_SECONDS, help="seconds after which clients give up (default: 1)")
    add("--no-sheds", action="store_true", help="leave the rate of plain 503s out")
    add("--json", type=Path, help="a file for the results")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, pinning: Pinning, console: Console) -> tuple[list[Result], float | None]:
    results = []
    with running_on(pinning.load), tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        for name in options.servers:
            with started(gunicorn(name, APP, {"GREENROOM_THREADS": THREADS}), logs, pinning) as running:
                peak = measure_peak(running, options)
                console.print(f"{name}: peak {peak:.1f}/s")
                for level in options.levels:
                    results.append(measure(running, level, peak, options, pinning))
                    console.print(progress(results[-1]))
        sheds = None if options.no_sheds else measure_sheds(logs, pinning)
    return results, sheds


def started(server: ServerUnderTest, logs: Path, pinning: Pinning) -> Any:
    log = logs / f"{server.name}.log"
    return serving(server, log=log, cores=pinning.server, environment={}, ready_path="/healthz")


def path_of(options: argparse.Namespace) -> str:
    return f"{options.path}?cpu={options.cpu:g}&wait={options.wait:g}"


def measure_peak(running: RunningServer, options: argparse.Namespace) -> float:
    load = Load(HOST, running.port, path_of(options), BODY, PEAK_CLIENTS, 1.0, PEAK_SECONDS, 10.0)
    return Generator(load).run().requests_per_second


def measure(running: RunningServer, level: float, peak: float, options: argparse.Namespace, pinning: Pinning) -> Result:
    end = REST_SECONDS + options.seconds
    phases = [
        Phase(REST * peak, REST_SECONDS),
        Phase(level * peak, options.seconds),
        Phase(REST * peak, AFTER_SECONDS),
    ]
    core, cpu_before = CoreClock(pinning.server), running.cpu_seconds()
    load = OpenLoop(
        HOST,
        running.port,
        path_of(options),
        phases,
        give_up_seconds=options.patience,
        keeps_connections=not options.new_connections,
        chance=random.Random(level),
    ).run()
    all_seconds = end + AFTER_SECONDS
    busy, used = core.busy_ratio(), (running.cpu_seconds() - cpu_before) / all_seconds
    slot = load.between(REST_SECONDS, end)
    after = [load.between(end + at * STEP_SECONDS, end + at * STEP_SECONDS + 1) for at in range(steps(AFTER_SECONDS))]
    good = slot.good_per_second
    shed = slot.count(503)
    return Result(
        server=running.server.name,
        level=level,
        kept=not options.new_connections,
        peak_per_second=peak,
        offered_per_second=slot.offered_per_second,
        good_per_second=good,
        goodput_ratio=good / peak,
        p50_ms=known(slot.milliseconds(50)),
        p99_ms=known(slot.milliseconds(99)),
        shed_ratio=slot.shed_ratio,
        shed_p99_ms=known(slot.milliseconds(99, 503)),
        failed_ratio=(len(slot.outcomes) - len(slot.good) - shed) / max(len(slot.outcomes), 1),
        recovered_seconds=recovered(after, (options.cpu + options.wait) / 1000 + SLOW_SECONDS),
        generator_cpu_ratio=load.cpu_ratio,
        generator_late_ms=load.latest_seconds * 1000,
        others_on_core_ratio=None if busy is None else max(0.0, busy - used),
    )


def steps(seconds: float) -> int:
    return round((seconds - 1.0) / STEP_SECONDS) + 1


def recovered(after: Sequence[Slot], slow_seconds: float) -> float | None:
    """Seconds after the drop, on the grid of `after`; None when that moment has not come."""
    for number, slot in enumerate(after):
        well = [one for one in slot.good if one.seconds <= slow_seconds]
        if slot.outcomes and len(well) >= RECOVERED_RATIO * len(slot.outcomes):
            return number * STEP_SECONDS
    return None


def measure_sheds(logs: Path, pinning: Pinning) -> float:
    """A worker whose only place is taken turns everything else away; CPU seconds count, not the clients' speed."""
    settings = {
        "GREENROOM_LIMIT_REQUESTS": "1",
        "GREENROOM_QUEUE_LIMIT_REQUESTS": "0",
        "GREENROOM_CLIENT_LEFT_ENDS": "off",  # who takes the place does not wait for the answer
        "GREENROOM_LOG_LEVEL": "error",
    }
    with started(gunicorn("greenroom", APP, settings), logs, pinning) as running:
        occupy = OpenLoop(HOST, running.port, "/work?wait=20000", [Phase(100.0, 0.1)], give_up_seconds=0.2)
        occupy.run()  # nobody waits for the answer, but the place is taken
        load = Load(HOST, running.port, "/work", SHED_BODY, SHED_CLIENTS, 0.5, SHED_SECONDS, 10.0, expected_status=503)
        used: list[float] = []
        look = lambda: used.append(running.cpu_seconds())  # noqa: E731
        sample = Generator(load, at_start=look, at_end=look).run()
        if sample.errors or not sample.completed:
            raise ServerFailed(f"not only 503s: {dict(sample.errors)}\n{running.log_tail()}")
        return sample.completed / (used[1] - used[0])


SHED_BODY = b"The server is overloaded. Try again in a moment.\n"


def known(value: float) -> float | None:
    return None if math.isnan(value) else value


def table(results: Sequence[Result]) -> Table:
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in (
        "level",
        "server",
        "offered/s",
        "good/s",
        "of peak",
        "p50 ms",
        "p99 ms",
        "shed",
        "503 p99 ms",
        "failed",
        "recovered s",
        "generator",
        "late ms",
        "others on core",
    ):
        result.add_column(title, justify="left" if title == "server" else "right", no_wrap=True)
    for one in sorted(results, key=lambda one: one.level):
        result.add_row(*row(one))
    return result


def row(one: Result) -> list[str]:
    return [
        f"{one.level:g}x",
        one.server,
        f"{one.offered_per_second:.0f}",
        f"{one.good_per_second:.0f}",
        f"{one.goodput_ratio:.0%}",
        shown(one.p50_ms),
        shown(one.p99_ms),
        f"{one.shed_ratio:.1%}",
        shown(one.shed_p99_ms),
        f"{one.failed_ratio:.1%}",
        "never" if one.recovered_seconds is None else f"{one.recovered_seconds:.1f}",
        f"{one.generator_cpu_ratio:.0%}",
        f"{one.generator_late_ms:.0f}",
        "" if one.others_on_core_ratio is None else f"{one.others_on_core_ratio:.0%}",
    ]


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def progress(one: Result) -> str:
    return "  " + "  ".join(cell for cell in row(one))


if __name__ == "__main__":
    sys.exit(main())
