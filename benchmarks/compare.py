"""The same application under sync, gthread and gevent workers: `python -m benchmarks.compare`.

    database, upstream, generator ......... on their cores
    round 1: sync    -> database, plain, upstream
             gthread -> database, plain, upstream         server: one worker, on its core
             gevent  -> database, plain, upstream
    round 2: the same again, so that what changes over time changes for all of them
    medians -> table, compare.json, compare.png, compare.svg

Only the worker class differs: the code, the configuration file, the client, the pools and the machine are the same.
"""

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from . import machine, report
from .client import Generator, Load, Sample
from .database import database_running, messages_about
from .machine import CoreClock, Pinning, running_on, this_machines_pinning
from .servers import (
    HOST,
    RunningServer,
    ServerFailed,
    ServerUnderTest,
    check_answer,
    effective_settings,
    gunicorn,
    serving,
    upstream_running,
)
from .stats import Round, percentile, summarize

APP = "benchmarks.apps.blocking:app"
WORKER_CLASSES = ("sync", "gthread", "gevent")
BASELINE = WORKER_CLASSES[0]
PACKAGES = (
    "flask",
    "werkzeug",
    "gunicorn",
    "gevent",
    "greenlet",
    "requests",
    "urllib3",
    "sqlalchemy",
    "psycopg2-binary",
)
DEFAULT_OUTPUT = machine.ROOT / "benchmarks" / "out"
EXIT_FAILED = 1
DESCRIPTION = (
    "The same application under sync, gthread and gevent workers: a table, JSON and a plot. "
    "DATABASE_URL names a PostgreSQL to use; without it an embedded one is started."
)
TABLE_COLUMNS = 120


@dataclass(frozen=True)
class Route:
    """What is asked for, what it waits for, and the only right answer."""

    name: str
    path: str
    about: str
    expected: dict[str, Any]


ROUTES = (
    Route("upstream", "/upstream", "requests to a service that takes 100 ms", {"upstream": {"delay_ms": 100}}),
    Route("database", "/database", "one query through a pool, ten rows", {"rows": messages_about(7)}),
    Route("plain", "/plain", "a small dict, nothing to wait for", {"message": "hello", "numbers": [1, 2, 3]}),
)


@dataclass(frozen=True)
class Options:
    rounds: int
    seconds: float
    warm_up_seconds: float
    clients: int
    threads: int
    timeout_seconds: float
    output: Path


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = read_options(arguments)
    console = Console(highlight=False)
    # A table that is folded can't be read; in a narrow window or a pipe it is better too wide.
    console.width = max(console.width, TABLE_COLUMNS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is stopped
    try:
        compare(options, shlex.join(["python", "-m", "benchmarks.compare", *arguments]), console)
    except ServerFailed as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def read_options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=DESCRIPTION)
    add = parser.add_argument
    add("--rounds", type=between(int, 1, 100), default=3, help="how often each server is measured (default: 3)")
    add("--seconds", type=between(float, 0.1, 600), default=5, help="measured time of a route in a round (default: 5)")
    add("--clients", type=between(int, 1, 1000), default=64, help="connections, a request each (default: 64)")
    add("--threads", type=between(int, 1, 1000), default=8, help="threads of the gthread worker (default: 8)")
    add("--timeout", type=between(float, 0.1, 600), default=30, help="seconds until a request failed (default: 30)")
    add("--output", type=Path, default=DEFAULT_OUTPUT, help="folder for results, logs and the database")
    add("--quick", action="store_true", help="a smoke test: one round, half a second a route, 8 clients")
    given = parser.parse_args(arguments)
    if given.quick:
        given.rounds, given.seconds, given.clients = 1, 0.5, 8
    return Options(
        rounds=given.rounds,
        seconds=given.seconds,
        warm_up_seconds=0.3 if given.quick else 1.5,
        clients=given.clients,
        threads=given.threads,
        timeout_seconds=given.timeout,
        output=given.output.resolve(),
    )


def compare(options: Options, command: str, console: Console) -> None:
    """Measure, and leave table, JSON and plot. Raises ServerFailed when a part does not work."""
    started_at = now()
    facts = machine.facts()
    pinning = this_machines_pinning()
    servers = [gunicorn(name, APP, {"GREENROOM_THREADS": str(options.threads)}) for name in WORKER_CLASSES]
    (options.output / "logs").mkdir(parents=True, exist_ok=True)
    console.print(f"Pinning: {pinning.note}.")

    rounds, database, memory_kind = run_rounds(servers, options, pinning, console)

    summaries = in_order(summarize(rounds, BASELINE))
    warnings = report.warnings(
        summaries,
        load_average_before=facts["load_average_before"],
        busy_load_average=machine.BUSY_LOAD_AVERAGE,
        timeout_seconds=options.timeout_seconds,
    )
    content = report.document(
        command=command,
        started_at=started_at,
        finished_at=now(),
        machine={**facts, "pinning": pinning_document(pinning)},
        versions={**machine.versions(PACKAGES), "database": database, "commit": machine.git_commit() or "unknown"},
        options={**asdict(options), "output": options.output.name},
        servers=[
            {**server.as_dict(), "command": ["python", *server.command[1:]]} | settings_of(server) for server in servers
        ],
        routes={route.name: route.about for route in ROUTES},
        baseline=BASELINE,
        memory_kind=memory_kind,
        warnings=warnings,
        rounds=rounds,
        summaries=summaries,
    )
    show(content, summaries, rounds, options, console)


def run_rounds(
    servers: Sequence[ServerUnderTest], options: Options, pinning: Pinning, console: Console
) -> tuple[list[Round], str, str]:
    """All rounds, one sentence about the database, and how memory was counted."""
    rounds = []
    memory_kind = "RSS"
    with ExitStack() as stack:
        stack.enter_context(running_on(pinning.load))
        database_url, database = stack.enter_context(database_running(options.output / "instance" / "postgres"))
        upstream_url = stack.enter_context(upstream_running())
        environment = {"DATABASE_URL": database_url, "UPSTREAM_URL": upstream_url}
        for number in range(1, options.rounds + 1):
            for server in servers:
                log = options.output / "logs" / f"{server.name}-{number}.log"
                with serving(
                    server, log=log, cores=pinning.server, environment=environment, ready_path="/plain"
                ) as running:
                    for route in ROUTES:
                        one, memory_kind = measure(running, route, number, options, pinning)
                        rounds.append(one)
                        console.print(progress(one, options.rounds), soft_wrap=True)
    return rounds, database, memory_kind


def measure(running: RunningServer, route: Route, number: int, options: Options, pinning: Pinning) -> tuple[Round, str]:
    """One server, one route, one round; and how its memory was counted."""
    load = Load(
        host=HOST,
        port=running.port,
        path=route.path,
        # Every answer must be this one, byte for byte.
        expected_body=check_answer(running, route.path, route.expected),
        clients=options.clients,
        warm_up_seconds=options.warm_up_seconds,
        seconds=options.seconds,
        timeout_seconds=options.timeout_seconds,
    )
    meter = Meter(running, pinning)
    sample = Generator(load, at_start=meter.start, at_end=meter.stop).run()
    memory_bytes, memory_kind = running.memory()
    return round_of(sample, running.server.name, route.name, number, memory_bytes, meter), memory_kind


class Meter:
    """What the measured time cost: the server's CPU, and who else kept the cores busy."""

    def __init__(self, running: RunningServer, pinning: Pinning) -> None:
        self.running = running
        self.pinning = pinning

    def start(self) -> None:
        self.started = time.monotonic()
        self.load_clock = CoreClock(self.pinning.load)
        self.server_clock = CoreClock(self.pinning.server)
        self.cpu_before = self.running.cpu_seconds()

    def stop(self) -> None:
        seconds = time.monotonic() - self.started
        self.server_cpu_ratio = (self.running.cpu_seconds() - self.cpu_before) / seconds
        self.load_cores_busy_ratio = self.load_clock.busy_ratio()
        core_busy = self.server_clock.busy_ratio()
        # The kernel counts in hundredths of a second, so the difference may come out a little below nothing.
        self.others_on_server_core_ratio = None if core_busy is None else max(0.0, core_busy - self.server_cpu_ratio)


def round_of(sample: Sample, server: str, route: str, number: int, memory_bytes: int, meter: Meter) -> Round:
    at = partial(percentile, sorted(sample.latencies_ms))
    return Round(
        server=server,
        route=route,
        number=number,
        seconds=sample.seconds,
        completed=sample.completed,
        requests_per_second=sample.requests_per_second,
        p50_ms=at(50),
        p90_ms=at(90),
        p99_ms=at(99),
        max_ms=at(100),
        errors=dict(sample.errors),
        memory_bytes=memory_bytes,
        generator_cpu_ratio=sample.generator_cpu_ratio,
        server_cpu_ratio=meter.server_cpu_ratio,
        load_cores_busy_ratio=meter.load_cores_busy_ratio,
        others_on_server_core_ratio=meter.others_on_server_core_ratio,
    )


def show(
    content: dict[str, Any], summaries: Sequence[Any], rounds: Sequence[Round], options: Options, console: Console
) -> None:
    """The table and the warnings on the terminal, the files in the output folder."""
    console.print()
    console.print(report.table(summaries, BASELINE, content["method"]["memory"].split()[0]))
    load = report.load_in_words(options, "gthread")
    console.print(f"{load}.")
    for warning in content["warnings"]:
        console.print(f"Warning: {warning}.", style="yellow")
    versions = content["versions"]
    report.write(
        content,
        summaries,
        rounds,
        title="One worker, the same blocking code: " + ", ".join(WORKER_CLASSES),
        load=load,
        versions=f"gunicorn {versions['gunicorn']}, gevent {versions['gevent']}",
        stem=options.output / "compare",
    )


def progress(one: Round, rounds: int) -> str:
    rate, p50, p99 = (report.number(value) for value in (one.requests_per_second, one.p50_ms, one.p99_ms))
    return (
        f"round {one.number}/{rounds}  {one.server:8} {one.route:9} {rate:>6} requests/s"
        f"  p50 {p50:>6} ms  p99 {p99:>6} ms  errors {report.errors(one.errors)}"
    )


def in_order(summaries: Sequence[Any]) -> list[Any]:
    """By route, and within a route in the order of the worker classes."""
    routes = [route.name for route in ROUTES]
    return sorted(summaries, key=lambda one: (routes.index(one.route), WORKER_CLASSES.index(one.server)))


def settings_of(server: ServerUnderTest) -> dict[str, Any]:
    return {"settings": effective_settings(server)}


def pinning_document(pinning: Pinning) -> dict[str, Any]:
    return {
        "is_pinned": pinning.is_pinned,
        "server_cores": sorted(pinning.server),
        "load_cores": sorted(pinning.load),
        "note": pinning.note,
    }


def between(kind: type, low: float, high: float) -> Any:
    """An argparse type: a number from `low` to `high`."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low:g} to {high:g}")
        return value

    parse.__name__ = "number"
    return parse


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


if __name__ == "__main__":
    sys.exit(main())
