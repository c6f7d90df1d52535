"""The common parts of the benchmarks: how a command ends, and what one measured time says."""

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.console import Console

from .client import Sample
from .machine import ROOT, CoreClock, Pinning
from .servers import RunningServer, ServerFailed
from .stats import Round, percentile

DEFAULT_OUTPUT = ROOT / "benchmarks" / "out"
EXIT_FAILED = 1
TABLE_COLUMNS = 145


def ending(work: Callable[[], bool | None]) -> int:
    """Do the work of a command; the exit code: 0, or 1 where it is False or a server fails, which is said."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is stopped
    try:
        return EXIT_FAILED if work() is False else 0
    except ServerFailed as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 128 + signal.SIGINT


def wide_console(columns: int = TABLE_COLUMNS) -> Console:
    """A table that is folded can't be read; in a narrow window or a pipe it is better too wide."""
    console = Console(highlight=False)
    console.width = max(console.width, columns)
    return console


def command_of(name: str, arguments: Sequence[str]) -> str:
    """The command as it can be typed again."""
    return shlex.join(["python", "-m", f"benchmarks.{name}", *arguments])


class Meter:
    """The cost of the measured time: the server's CPU, and who else kept the cores busy."""

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


def round_of(
    sample: Sample, server: str, route: str, number: int, memory_bytes: int, meter: Meter, clients: int = 0
) -> Round:
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
        clients=clients,
    )


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
