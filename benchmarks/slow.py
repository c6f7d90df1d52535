"""The cost of slow clients to the others: `python -m benchmarks.slow`.

    round: quiet ──> slow clients connect ──> loud ──> they leave ──> quiet, and again

A slow head sends a header line every few seconds and never the last one; a slow body sends a byte every few seconds of
the million that it announces. A client that is told that it was too slow comes again, so there are always as many. The
others send at a steady rate (open loop), in quiet and in loud times the same; what is compared is the 99th percentile
of their latencies. Memory is the worker's own: when all slow clients are there, and at the end of their time.

One worker on one core, with its default settings; slow clients and load on another.
"""

import argparse
import random
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .machine import raise_file_limit, running_on, this_machines_pinning, verdict
from .measuring import ending
from .openloop import OpenLoop, Phase, Slot
from .rolling import APP
from .servers import HOST, RunningServer, ServerFailed, gunicorn, serving
from .stats import percentile

MOST_TIMES_SLOWER = 1.5
MOST_GROWTH = 1.05
PAUSE_SECONDS = 3.0
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
LINE = b"X-Slow: x\r\n"
BODY_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
CONNECTIONS_AT_ONCE = 100
SETTLE_SECONDS = 2.0  # two thousand clients that come at once are a burst, and not what is measured here


@dataclass
class Found:
    """`quiet` and `loud` p99s in milliseconds by round; memory in bytes before, with slow clients, and at their end."""

    quiet: list[float] = field(default_factory=list)
    loud: list[float] = field(default_factory=list)
    failed: int = 0
    memory: list[tuple[int, int, int]] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worker-classes", nargs="+", default=["greenroom", "gevent"])
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--bodies", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second of the others (default: 300)")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="how long each quiet and loud time is (default: 15)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    raise_file_limit(arguments.heads + arguments.bodies + 2000)
    if arguments.clients_of:
        SlowClients(arguments.clients_of, arguments.heads, arguments.bodies).run()
        return 0

    def compare() -> bool:
        verdicts = {name: judge(name, measure(name, arguments)) for name in arguments.worker_classes}
        return all(verdicts.get("greenroom", ()))

    return ending(compare)


def measure(worker_class: str, arguments: argparse.Namespace) -> Found:
    found = Found()
    server = gunicorn(worker_class, APP)
    pinning = this_machines_pinning()
    with tempfile.TemporaryDirectory() as folder, running_on(pinning.load):
        log = Path(folder) / "server.log"
        with serving(server, log=log, cores=pinning.server, environment={}, ready_path="/healthz") as running:
            others(running, arguments, 2.0, found)  # warms up
            for _ in range(arguments.rounds):
                before, _ = running.memory()
                found.quiet.append(others(running, arguments, arguments.seconds, found))
                with slow_clients(running.port, arguments):
                    time.sleep(SETTLE_SECONDS)
                    at_first, _ = running.memory()
                    found.loud.append(others(running, arguments, arguments.seconds, found))
                    at_last, _ = running.memory()
                found.memory.append((before, at_first, at_last))
                time.sleep(1.0)  # until they are gone
    return found


def others(running: RunningServer, arguments: argparse.Namespace, seconds: float, found: Found) -> float:
    """The p99 of those who are not slow, in milliseconds. A request without an answer counts as long as it took."""
    load = OpenLoop(
        HOST, running.port, "/", [Phase(arguments.rate, seconds)], give_up_seconds=5.0, chance=random.Random(1)
    )
    slot: Slot = load.run().between(0.0, seconds)
    bad = [one for one in slot.outcomes if one.result != 200]
    found.failed += len(bad)
    if bad:
        print("failed:", Counter(one.result for one in bad), f"from {bad[0].due:.1f} to {bad[-1].due:.1f} s")
    return percentile([one.seconds * 1000 for one in slot.outcomes], 99)


def judge(worker_class: str, found: Found) -> list[bool]:
    quiet, loud = median(found.quiet), median(found.loud)
    before, at_first, at_last = (median(values) / 1e6 for values in zip(*found.memory, strict=True))
    print(
        f"{worker_class:10} p99 quiet {quiet:.2f} ms, with slow clients {loud:.2f} ms; {found.failed} failed; memory "
        f"{before:.1f} MB without, {at_first:.1f} MB when they are there, {at_last:.1f} MB at the end of their time",
        flush=True,
    )
    return [
        verdict(f"{worker_class}: p99 with slow clients / quiet", loud / quiet, most=MOST_TIMES_SLOWER),
        verdict(
            f"{worker_class}: memory at the end of their time / at its beginning", at_last / at_first, most=MOST_GROWTH
        ),
        verdict(f"{worker_class}: failed requests of the others", found.failed, most=0),
    ]


@contextmanager
def slow_clients(port: int, arguments: argparse.Namespace) -> Iterator[None]:
    """They run in a process of their own until the block is left; all are connected when it begins."""
    command = [sys.executable, "-m", "benchmarks.slow", "--clients-of", str(port)]
    numbers = ["--heads", str(arguments.heads), "--bodies", str(arguments.bodies)]
    with subprocess.Popen([*command, *numbers], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise ServerFailed("the slow clients could not connect")
            yield
        finally:
            process.stdin.close()  # they end with their standard input


class SlowClients:
    """So many slow heads and bodies at a time; those that are sent away come again."""

    def __init__(self, port: int, heads: int, bodies: int) -> None:
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.to_come = [(HEAD, LINE)] * heads + [(BODY_HEAD, b"x")] * bodies
        self.random = random.Random(1)
        self.random.shuffle(self.to_come)
        self.next_at: dict[socket.socket, float] = {}
        self.pieces: dict[socket.socket, tuple[bytes, bytes]] = {}

    def run(self) -> None:
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        is_ready = False
        while True:
            for _ in range(min(len(self.to_come), CONNECTIONS_AT_ONCE)):
                self._connect(self.to_come.pop())
            if not self.to_come and not is_ready:
                is_ready = True
                print("ready", flush=True)
            for key, _ in self.selector.select(0.05):
                if key.fileobj is sys.stdin:
                    return
                self._receive(key.fileobj)  # type: ignore[arg-type]
            now = time.monotonic()
            for sock in [sock for sock, at in self.next_at.items() if at <= now]:
                self._send(sock, self.pieces[sock][1])

    def _connect(self, pieces: tuple[bytes, bytes]) -> None:
        sock = socket.create_connection((HOST, self.port), timeout=30)
        sock.setblocking(False)
        self.pieces[sock] = pieces
        self.selector.register(sock, selectors.EVENT_READ)
        self._send(sock, pieces[0])

    def _send(self, sock: socket.socket, data: bytes) -> None:
        try:
            sock.send(data)
            self.next_at[sock] = time.monotonic() + self.random.uniform(0.5, 1.5) * PAUSE_SECONDS
        except OSError:
            self._leave(sock)

    def _receive(self, sock: socket.socket) -> None:
        try:
            if sock.recv(65_536):
                return
        except OSError:
            pass  # it was sent away
        self._leave(sock)

    def _leave(self, sock: socket.socket) -> None:
        self.selector.unregister(sock)
        self.next_at.pop(sock, None)
        self.to_come.append(self.pieces.pop(sock))
        sock.close()


if __name__ == "__main__":
    sys.exit(main())
