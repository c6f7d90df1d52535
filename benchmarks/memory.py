"""A worker's private memory: one more worker, ours beside gunicorn's gevent worker.

    python -m benchmarks.memory [--workers 3]

Each worker has answered before it is looked at. Private memory is what the machine has less of with one worker more
(USS): what all processes share is counted for none. The ops process, of which there is one for a server, comes with it.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil

from .machine import this_machines_pinning
from .servers import HOST, RunningServer, gunicorn, serving

APPS = {"hello": "benchmarks.apps.hello:wsgi", "dict": "benchmarks.apps.flask_dict:app"}
REQUESTS = 50
SETTLE_SECONDS = 3.0


@dataclass(frozen=True)
class Measurement:
    """Megabytes. `ops`: 0 where there is none."""

    worker: float
    worker_resident: float
    ops: float


def measure(running: RunningServer) -> Measurement:
    for _ in range(REQUESTS):
        with urllib.request.urlopen(f"http://{HOST}:{running.port}/", timeout=30) as answer:
            answer.read()
    time.sleep(SETTLE_SECONDS)
    workers, ops = [], 0.0
    for child in psutil.Process(running.process.pid).children():
        with contextlib.suppress(psutil.Error):
            memory = child.memory_full_info()
            if "greenroom.ops" in child.cmdline():
                ops = memory.uss / 1e6
            else:
                workers.append((memory.uss / 1e6, memory.rss / 1e6))
    private, resident = zip(*workers, strict=True)
    return Measurement(statistics.median(private), statistics.median(resident), ops)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--servers", default="greenroom,gevent", help="worker classes, comma separated")
    options = parser.parse_args()
    cores = this_machines_pinning().server
    environment = {"WEB_CONCURRENCY": str(options.workers), "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "1"}
    print(f"{'':8}{'':12}{'private MB':>12}{'resident MB':>13}{'ops process':>13}")
    for route, app in APPS.items():
        for name in options.servers.split(","):
            with tempfile.TemporaryDirectory() as folder:
                log = Path(folder) / "server.log"
                server = gunicorn(name, app, environment)
                with serving(server, log=log, cores=cores, environment={}, ready_path="/") as running:
                    found = measure(running)
            print(f"{route:8}{name:12}{found.worker:>12.1f}{found.worker_resident:>13.1f}{found.ops:>13.1f}")


if __name__ == "__main__":
    main()
