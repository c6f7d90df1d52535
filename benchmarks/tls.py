"""The cost of a request over TLS, and as a stream of HTTP/2: CPU of the worker, ours beside gunicorn's gevent worker.

    python -m benchmarks.tls [--clients 32] [--rounds 5] [--seconds 2]

All servers run at the same time and are asked in turns, so that what else the machine does hits all of them. In a turn
each of the clients asks once, then all answers are read, again and again. CPU per request is the worker's own, user and
system, so it does not depend on how fast this client is.

    TLS, kept       requests of HTTP/1.1 on as many kept connections as there are clients
    HTTP/2          as many streams at once on one connection, each request the same few bytes (all of its head is in
                    the compression's table)
    idle            memory of a TLS connection that has asked once, with --idle connections
"""

import argparse
import contextlib
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .apps.hello import BODY
from .machine import raise_file_limit, this_machines_pinning
from .servers import HOST, RunningServer, ServerUnderTest, gunicorn, serving

APP = "benchmarks.apps.hello:wsgi"
ASK = b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: greenroom-benchmarks\r\nAccept: */*\r\n\r\n"
HEAD_END = b"\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES = 9
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGEST_WINDOW = 2**31 - 1 - 65_535
# GET / of https://x, then the same fields with :authority and user-agent as the table has them from then on.
FIRST_HEAD = b"\x82\x87\x84\x41\x01x\x7a\x05bench"
NEXT_HEAD = b"\x82\x87\x84\xbf\xbe"


@dataclass
class Asked:
    """One server, and what was measured of it."""

    running: RunningServer
    ask: Callable[[], int]
    microseconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def turn(self, seconds: float) -> None:
        cpu, began, count = self.running.cpu_seconds(), time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds:
            count += self.ask()
        self.microseconds.append((self.running.cpu_seconds() - cpu) / count * 1e6)
        self.rates.append(count / took)


class Kept:
    """Requests of HTTP/1.1 on kept connections."""

    def __init__(self, connections: list[ssl.SSLSocket]) -> None:
        self.connections = connections

    def __call__(self) -> int:
        for connection in self.connections:
            connection.sendall(ASK)
        for connection in self.connections:
            read_answer(connection)
        return len(self.connections)


def read_answer(connection: ssl.SSLSocket) -> None:
    answer = b""
    while HEAD_END not in answer or not answer.endswith(BODY):
        part = connection.recv(65_536)
        if not part:
            raise ConnectionError(f"the server closed a connection that it should keep: {answer!r}")
        answer += part


class Streams:
    """`count` requests of HTTP/2 at once, on one connection. Frames made and read by hand: h2 would cost more than
    the server."""

    def __init__(self, connection: ssl.SSLSocket, count: int) -> None:
        self.connection = connection
        self.count = count
        self.next_stream = 1
        self.received = b""
        window = LARGEST_WINDOW.to_bytes(4, "big")
        connection.sendall(PREFACE + frame(SETTINGS) + frame(WINDOW_UPDATE, window))
        connection.sendall(frame(HEADERS, FIRST_HEAD, END_STREAM | END_HEADERS, 1))
        self._read(1)

    def __call__(self) -> int:
        asked = b""
        for _ in range(self.count):
            self.next_stream += 2
            asked += frame(HEADERS, NEXT_HEAD, END_STREAM | END_HEADERS, self.next_stream)
        self.connection.sendall(asked)
        self._read(self.count)
        return self.count

    def _read(self, streams: int) -> None:
        while streams:
            data = self.connection.recv(262_144)
            if not data:
                raise ConnectionError("the server closed a connection that it should keep")
            self.received += data
            start = 0
            while start + FRAME_HEAD_BYTES <= len(self.received):
                size = int.from_bytes(self.received[start : start + 3], "big")
                if start + FRAME_HEAD_BYTES + size > len(self.received):
                    break
                kind, flags = self.received[start + 3], self.received[start + 4]
                if kind in (DATA, HEADERS) and flags & END_STREAM:
                    streams -= 1
                elif kind == SETTINGS and not flags & ACK:
                    self.connection.sendall(frame(SETTINGS, flags=ACK))
                elif kind not in (DATA, HEADERS, SETTINGS, WINDOW_UPDATE, PING):
                    raise ConnectionError(f"the server sent a frame of kind {kind}")
                start += FRAME_HEAD_BYTES + size
            self.received = self.received[start:]


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def client_context(certificate: Path, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def connect(running: RunningServer, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.create_connection((HOST, running.port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Raises FileNotFoundError without openssl."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def with_tls(name: str, certificate: Path, key: Path, **more: str) -> ServerUnderTest:
    environment = {
        "GREENROOM_TLS_CERTIFICATE": str(certificate),
        "GREENROOM_TLS_KEY": str(key),
        "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "1",
        "GREENROOM_KEEPALIVE_SECONDS": "3600",
        **more,
    }
    server = gunicorn(name, APP, environment)
    return replace(server, command=(sys.executable, "-m", "gunicorn", "--http-protocols", "h2,h1"))


def measure(options: Any, stack: contextlib.ExitStack, folder: Path) -> dict[str, dict[str, Asked]]:
    """Measure the cost of each way of asking at each server."""
    certificate, key = make_certificate(folder)
    found: dict[str, dict[str, Asked]] = {"TLS, kept": {}, "HTTP/2": {}}
    cores = this_machines_pinning().server
    for name in options.servers.split(","):
        server = with_tls(name, certificate, key, GREENROOM_WORKER_CONNECTIONS="10000")
        log = folder / f"{name}.log"
        running = stack.enter_context(serving(server, log=log, cores=cores, environment={}, ready_path="/"))
        plain, http2 = client_context(certificate), client_context(certificate, "h2")
        kept = [stack.enter_context(connect(running, plain)) for _ in range(options.clients)]
        found["TLS, kept"][name] = Asked(running, Kept(kept))
        streams = Streams(stack.enter_context(connect(running, http2)), options.clients)
        found["HTTP/2"][name] = Asked(running, streams)
    for _ in range(options.rounds):
        for servers in found.values():
            for asked in servers.values():
                asked.turn(options.seconds)
    return found


def idle_kilobytes(asked: Asked, certificate: Path, count: int) -> float:
    context = client_context(certificate)
    with contextlib.ExitStack() as stack:
        before, _ = asked.running.memory()
        for _ in range(count):
            connection = stack.enter_context(connect(asked.running, context))
            connection.sendall(ASK)
            read_answer(connection)
        after, _ = asked.running.memory()
    return (after - before) / count / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--idle", type=int, default=1000, help="connections to measure the memory of (default: 1000)")
    parser.add_argument("--servers", default="greenroom,gevent", help="worker classes, comma separated")
    options = parser.parse_args()
    raise_file_limit(options.idle + 1000)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        found = measure(options, stack, folder)
        print(f"{'':12}{'':12}{'CPU us each':>14}{'requests/s':>13}")
        for how, servers in found.items():
            for server, asked in servers.items():
                print(
                    f"{how:12}{server:12}{statistics.median(asked.microseconds):>14.1f}"
                    f"{statistics.median(asked.rates):>13,.0f}"
                )
        for server, asked in found["TLS, kept"].items() if options.idle else ():
            each = idle_kilobytes(asked, folder / "certificate.pem", options.idle)
            print(f"{'idle':12}{server:12}{each:>11.1f} KB each of {options.idle:,} connections")


if __name__ == "__main__":
    main()
