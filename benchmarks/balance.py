"""Whether all workers get their share, and who waits behind one that is blocked: `python -m benchmarks.balance`.

    share     clients with a kept connection each, as fast as they get answers: requests by worker, busiest / idlest
    blocked   requests on new connections at a steady rate, while one worker does nothing else for 4 s: how many of
              them take longer than a second
    kept      the same on kept connections, for comparison: what came over a connection that the blocked worker has
              accepted waits for it, and nobody can take it over

    after ...  what makes shares uneven: clients who connect in the moment of the first answer, a reload, one worker
               more, a worker that stood still. Busiest / idlest from SETTLE_SECONDS later on

Several workers on all cores that this process may use, the load among them: shares and stalls are compared, not rates.
"""

import argparse
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from .apps.pid import BLOCK_SECONDS
from .machine import verdict
from .measuring import ending
from .openloop import OpenLoop, Phase, Slot
from .rolling import APP, Load
from .servers import HOST, RunningServer, gunicorn, serving

MOST_SKEW = 1.5
MOST_UNEVEN = 1.3
SETTLE_SECONDS = 10.0
# Together: nobody's worker is full, so that shares show who has which clients.
SPREAD_RATE = 400.0
SPREAD_CLIENTS = 80
MOST_SLOW_RATIO = 0.01
SLOW_SECONDS = 1.0
LEAD_SECONDS = 1.0


def main() -> int:
    arguments = read_options(sys.argv[1:])

    def compare() -> bool:
        verdicts = {name: judged(name, arguments) for name in arguments.worker_classes}
        return all(verdicts.get("greenroom", ()))

    return ending(compare)


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worker-classes", nargs="+", default=["greenroom", "gevent"])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long shares are counted (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="workers blocked, one after the other (default: 3)")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second beside a blocked worker")
    return parser.parse_args(arguments)


def judged(worker_class: str, arguments: argparse.Namespace) -> list[bool]:
    with started(worker_class, arguments.workers, waits_for_all=False) as running:
        burst = spread_after(running, arguments, lambda running: None, arguments.workers)
    verdicts = [verdict(f"{worker_class}: busiest / idlest after a burst at start", burst, most=MOST_UNEVEN)]
    with started(worker_class, arguments.workers) as running:
        return verdicts + measure(running, arguments)


@contextmanager
def started(worker_class: str, workers: int, *, waits_for_all: bool = True) -> Iterator[RunningServer]:
    everywhere = frozenset(psutil.Process().cpu_affinity() or ())
    server = gunicorn(worker_class, APP, {"WEB_CONCURRENCY": str(workers), "GREENROOM_KEEPALIVE_SECONDS": "60"})
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with serving(server, log=log, cores=everywhere, environment={}, ready_path="/healthz") as running:
            give_up_at = time.monotonic() + 30
            while waits_for_all and len(answering(running)) < workers and time.monotonic() < give_up_at:
                time.sleep(0.1)
            yield running


def answering(running: RunningServer) -> set[bytes]:
    """Which workers answer some requests."""
    return {running.get("/healthz")[1] for _ in range(30)}


def measure(running: RunningServer, arguments: argparse.Namespace) -> list[bool]:
    name = running.server.name
    skew = shares(running, arguments)
    uneven = {
        what: spread_after(running, arguments, act, count) for what, act, count in disturbances(arguments.workers)
    }
    slow = blocked(running, arguments, keeps_connections=False)
    kept = blocked(running, arguments, keeps_connections=True)
    print(f"{name:10} kept connections beside a blocked worker: {kept:.2%} over {SLOW_SECONDS:g} s", flush=True)
    return [
        verdict(f"{name}: busiest / idlest worker of {arguments.clients} connections", skew, most=MOST_SKEW),
        *(verdict(f"{name}: busiest / idlest {what}", ratio, most=MOST_UNEVEN) for what, ratio in uneven.items()),
        verdict(
            f"{name}: share of new connections over {SLOW_SECONDS:g} s beside a blocked worker",
            slow,
            most=MOST_SLOW_RATIO,
        ),
    ]


def shares(running: RunningServer, arguments: argparse.Namespace) -> float:
    load = Load(running.port, arguments.clients, 0.0)
    end = time.monotonic() + arguments.seconds
    load.run(lambda _: time.monotonic() > end)
    load.close()
    counts = sorted(load.count.by_worker.values())
    print(f"{running.server.name:10} requests by worker: {counts}, {load.count.lost} lost, {load.count.shed} shed")
    return counts[-1] / counts[0] if len(counts) >= arguments.workers else float("inf")


def spread_after(
    running: RunningServer, arguments: argparse.Namespace, act: Callable[[RunningServer], object], workers: int
) -> float:
    """Busiest / idlest worker, by requests, of clients that keep their connections, when `act` is over for a while."""
    load = Load(running.port, SPREAD_CLIENTS, SPREAD_RATE)
    run_for(load, 1.0)
    acting = threading.Thread(target=act, args=[running])
    acting.start()
    run_for(load, SETTLE_SECONDS)
    acting.join()
    load.count.by_worker.clear()
    run_for(load, arguments.seconds)
    load.close()
    counts = sorted(load.count.by_worker.values())
    print(f"{running.server.name:10} requests by worker: {counts} of {workers}, {load.count.lost} lost", flush=True)
    return counts[-1] / counts[0] if len(counts) >= workers else float("inf")


def run_for(load: Load, seconds: float) -> None:
    end = time.monotonic() + seconds
    load.run(lambda _: time.monotonic() > end)


def disturbances(workers: int) -> list[tuple[str, Callable[[RunningServer], object], int]]:
    """Return the disturbances: a name, a function that causes it, and the number of workers afterwards."""
    return [
        ("after a worker stood still", lambda running: block(running.port), workers),
        ("after HUP", lambda running: running.process.send_signal(signal.SIGHUP), workers),
        ("after TTIN", lambda running: running.process.send_signal(signal.SIGTTIN), workers + 1),
    ]


def blocked(running: RunningServer, arguments: argparse.Namespace, *, keeps_connections: bool) -> float:
    """The share of requests, due while a worker was blocked, that took over a second or got no answer."""
    slow = count = 0
    for number in range(arguments.rounds):
        load = OpenLoop(
            HOST,
            running.port,
            "/",
            [Phase(arguments.rate, LEAD_SECONDS + BLOCK_SECONDS)],
            give_up_seconds=2.0 * BLOCK_SECONDS,
            keeps_connections=keeps_connections,
            chance=random.Random(number),
        )
        blocker = threading.Timer(LEAD_SECONDS, block, [running.port])
        blocker.start()
        slot: Slot = load.run().between(LEAD_SECONDS, LEAD_SECONDS + BLOCK_SECONDS)
        blocker.join()
        slow += sum(one.seconds > SLOW_SECONDS or one.result not in (200, 503) for one in slot.outcomes)
        count += len(slot.outcomes)
    return slow / max(count, 1)


def block(port: int) -> None:
    """Have some worker do nothing else for a while, and wait until it is back."""
    with socket.create_connection((HOST, port), timeout=60) as sock:
        sock.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.recv(1)


if __name__ == "__main__":
    sys.exit(main())
