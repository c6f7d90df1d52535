"""The cost of an idle connection: memory in the worker, and time for the next new client.

    python -m benchmarks.idle [--connections 10000] [--servers greenroom,gevent]

Each connection asks once and is kept; then the worker's memory is compared with what it was before, and new clients
connect and ask, one after the other. Memory is the worker's own (PSS where the system tells); the kernel's buffers for
the sockets are the same for every server and not counted.
"""

import argparse
import contextlib
import socket
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .machine import raise_file_limit, this_machines_pinning
from .servers import HOST, RunningServer, gunicorn, serving

APP = "benchmarks.apps.hello:wsgi"
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER_END = b"\r\n\r\n"
NEW_CLIENTS = 50


@dataclass(frozen=True)
class Measurement:
    name: str
    connections: int
    kilobytes_each: float
    new_client_ms: float
    slowest_new_client_ms: float


def measure(running: RunningServer, connections: int) -> Measurement:
    with contextlib.ExitStack() as stack:
        for _ in range(200):  # what the first ones cost is not the connections'
            ask(stack.enter_context(connect(running)))
        before, _ = running.memory()
        for _ in range(connections):
            ask(stack.enter_context(connect(running)))
        after, _ = running.memory()
        times = []
        for _ in range(NEW_CLIENTS):
            began = time.perf_counter()
            with connect(running) as sock:
                ask(sock)
            times.append((time.perf_counter() - began) * 1000)
    each = (after - before) / connections / 1024
    return Measurement(running.server.name, connections, each, statistics.median(times), max(times))


def connect(running: RunningServer) -> socket.socket:
    return socket.create_connection((HOST, running.port), timeout=30)


def ask(sock: socket.socket) -> None:
    sock.sendall(ASK)
    answer = b""
    while ANSWER_END not in answer:
        part = sock.recv(65_536)
        if not part:
            raise ConnectionError("the server closed a connection that it should keep")
        answer += part


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--servers", default="greenroom,gevent", help="worker classes, comma separated")
    arguments = parser.parse_args()
    needed = arguments.connections + 1000
    raise_file_limit(needed)
    environment = {"GREENROOM_KEEPALIVE_SECONDS": "3600", "GREENROOM_WORKER_CONNECTIONS": str(needed)}
    pinning = this_machines_pinning()
    print(f"{'':12}{'connections':>12}{'KB each':>10}{'new client':>13}{'slowest':>10}")
    for name in arguments.servers.split(","):
        with tempfile.TemporaryDirectory() as folder:
            server = gunicorn(name, APP, {**environment, "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "1"})
            log = Path(folder) / "server.log"
            with serving(server, log=log, cores=pinning.server, environment={}, ready_path="/") as running:
                found = measure(running, arguments.connections)
        print(
            f"{found.name:12}{found.connections:>12,}{found.kilobytes_each:>10.2f}"
            f"{found.new_client_ms:>10.2f} ms{found.slowest_new_client_ms:>7.2f} ms"
        )


if __name__ == "__main__":
    main()
