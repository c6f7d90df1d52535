"""The cost of one busy client to the others: `python -m benchmarks.beside`.

    for each busy client:  /healthz is asked at a steady rate, mostly on a kept connection and each FRESH_EVERY'th time
                           on a new one, while that client, a process of its own, does one thing over and over

One worker on one core; the busy client and the load on another. The goal is MOST_MS at the 99th percentile. The client
that floods may be sent away; then it connects and goes on. Times are counted from the planned moment.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich import box
from rich.table import Table

from . import machine, tls
from .apps.huge_bodies import BODY
from .machine import running_on, this_machines_pinning, verdict
from .measuring import ending, wide_console
from .servers import HOST, RunningServer, ServerFailed, gunicorn, serving
from .stats import percentile

APP = "benchmarks.apps.huge_bodies:app"
SERVERS = ("gthread", "gevent", "greenroom")
MOST_MS = 50.0
RATE = 20.0  # one after the other, so that an answer within the goal never makes the next one late
FRESH_EVERY = 4
CLIENT_NICE = 5
LEAD_SECONDS = 0.5
UPLOAD_BYTES = 300 << 20
PIECE = b"x" * 65_536
FRAME_BYTES = 16_384
RST_STREAM = 3
PRIORITY = 2
ONE_BYTE_CHUNKS = 1_000_000
READ_BYTES = 1 << 18


def post(body: bytes) -> bytes:
    return b"POST /up HTTP/1.1\r\nHost: x\r\n" + body + b"\r\n\r\n"


def upload(sock: socket.socket) -> None:
    sock.sendall(post(b"Content-Length: %d" % UPLOAD_BYTES))
    for _ in range(UPLOAD_BYTES // len(PIECE)):
        sock.sendall(PIECE)
    sock.recv(READ_BYTES)


def upload_chunked(sock: socket.socket) -> None:
    sock.sendall(post(b"Transfer-Encoding: chunked"))
    chunk = b"%x\r\n%s\r\n" % (len(PIECE), PIECE)
    for _ in range(UPLOAD_BYTES // len(PIECE)):
        sock.sendall(chunk)
    sock.sendall(b"0\r\n\r\n")
    sock.recv(READ_BYTES)


def one_byte_chunks(sock: socket.socket) -> None:
    sock.sendall(post(b"Transfer-Encoding: chunked"))
    thousand = b"1\r\nx\r\n" * 1000
    for _ in range(ONE_BYTE_CHUNKS // 1000):
        sock.sendall(thousand)
    sock.sendall(b"0\r\n\r\n")
    sock.recv(READ_BYTES)


def download(path: bytes) -> Callable[[socket.socket], None]:
    def ask(sock: socket.socket) -> None:
        sock.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
        while sock.recv(READ_BYTES):
            pass
        raise ConnectionError

    return ask


def pipeline(sock: socket.socket) -> None:
    """Requests without end, and their answers read as they come."""
    exchange(sock, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 500)


def exchange(sock: socket.socket, data: bytes) -> None:
    sock.setblocking(False)
    waiting = memoryview(b"")
    while True:
        waiting = waiting or memoryview(data)
        moved = False
        with contextlib.suppress(BlockingIOError, tls.ssl.SSLWantWriteError, tls.ssl.SSLWantReadError):
            waiting, moved = waiting[sock.send(waiting) :], True
        with contextlib.suppress(BlockingIOError, tls.ssl.SSLWantWriteError, tls.ssl.SSLWantReadError):
            if not sock.recv(READ_BYTES):
                raise ConnectionError
            moved = True
        if not moved:
            time.sleep(0.0005)


def begin_http2(sock: socket.socket) -> None:
    window = tls.LARGEST_WINDOW.to_bytes(4, "big")
    sock.sendall(tls.PREFACE + tls.frame(tls.SETTINGS) + tls.frame(tls.WINDOW_UPDATE, window))


def upload_http2(sock: socket.socket) -> None:
    """As much as the server's windows allow, in frames of the usual size."""
    begin_http2(sock)
    # POST /up of https://x, as literals that are not kept in the table
    head = b"\x83\x87\x04\x03/up\x01\x01x"
    sock.sendall(tls.frame(tls.HEADERS, head, tls.END_HEADERS, 1))
    windows = {0: 65_535, 1: 65_535}
    received, left, first_window = b"", UPLOAD_BYTES, 65_535
    while left:
        while left and min(windows.values()) > 0:
            size = min(FRAME_BYTES, left, *windows.values())
            left -= size
            sock.sendall(tls.frame(tls.DATA, PIECE[:size], 0 if left else tls.END_STREAM, 1))
            windows = {stream: window - size for stream, window in windows.items()}
        if not left:
            break
        data = sock.recv(READ_BYTES)
        if not data:
            raise ConnectionError
        received += data
        while len(received) >= tls.FRAME_HEAD_BYTES:
            size, kind, flags = int.from_bytes(received[:3], "big"), received[3], received[4]
            stream, payload = int.from_bytes(received[5:9], "big"), received[9 : 9 + size]
            if len(payload) < size:
                break
            received = received[9 + size :]
            if kind == tls.WINDOW_UPDATE:
                windows[stream] += int.from_bytes(payload, "big")
            elif kind == tls.SETTINGS and not flags & tls.ACK:
                for start in range(0, size, 6):
                    if payload[start : start + 2] == b"\0\x04":
                        window = int.from_bytes(payload[start + 2 : start + 6], "big")
                        windows[1] += window - first_window
                        first_window = window
                sock.sendall(tls.frame(tls.SETTINGS, flags=tls.ACK))
            elif kind == tls.PING and not flags & tls.ACK:
                sock.sendall(tls.frame(tls.PING, payload, tls.ACK))
    sock.recv(READ_BYTES)
    raise ConnectionError


def download_http2(sock: socket.socket) -> None:
    begin_http2(sock)
    sock.sendall(tls.frame(tls.SETTINGS, b"\0\x04" + (2**31 - 1).to_bytes(4, "big")))
    sock.sendall(tls.frame(tls.HEADERS, b"\x82\x87\x04\x05/down\x01\x01x", tls.END_HEADERS | tls.END_STREAM, 1))
    count = 0
    while count < UPLOAD_BYTES:
        data = sock.recv(READ_BYTES)
        if not data:
            raise ConnectionError
        count += len(data)
    raise ConnectionError


def flood(frames: bytes) -> Callable[[socket.socket], None]:
    def send(sock: socket.socket) -> None:
        begin_http2(sock)
        exchange(sock, frames)

    return send


def resets(sock: socket.socket) -> None:
    begin_http2(sock)
    for first in range(1, 2**30, 2000):
        sock.sendall(
            b"".join(
                tls.frame(tls.HEADERS, b"\x82\x87\x84\x01\x01x", tls.END_HEADERS | tls.END_STREAM, stream)
                + tls.frame(RST_STREAM, b"\0\0\0\x08", stream=stream)
                for stream in range(first, first + 2000, 2)
            )
        )


PLAIN: dict[str, Callable[[socket.socket], None]] = {
    "upload of 300 MB": upload,
    "the same, chunked": upload_chunked,
    "a million chunks of a byte": one_byte_chunks,
    "download of 300 MB": download(b"/down"),
    "the same, in one piece": download(b"/down?one"),
    "the same, from a file": download(b"/down?file"),
    "pipelining without end": pipeline,
}
TLS: dict[str, Callable[[socket.socket], None]] = {
    "upload over TLS": upload,
    "chunks of a byte over TLS": one_byte_chunks,
    "download over TLS": download(b"/down"),
    "pipelining over TLS": pipeline,
}
HTTP2: dict[str, Callable[[socket.socket], None]] = {
    "upload over HTTP/2": upload_http2,
    "download over HTTP/2": download_http2,
    "HTTP/2: pings": flood(tls.frame(tls.PING, b"12345678") * 3000),
    "HTTP/2: settings": flood(tls.frame(tls.SETTINGS) * 3000),
    "HTTP/2: window updates": flood(tls.frame(tls.WINDOW_UPDATE, b"\0\0\0\1") * 3000),
    "HTTP/2: priorities": flood(tls.frame(PRIORITY, b"\0\0\0\0\1", stream=3) * 3000),
    "HTTP/2: requests reset at once": resets,
}
KINDS = {"none": None, **PLAIN, **TLS, **HTTP2}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--servers", nargs="+", default=list(SERVERS), help="worker classes to compare")
    add("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), help="which busy clients")
    add("--seconds", type=float, default=10.0, help="how long each is measured (default: 10)")
    add("--client", help=argparse.SUPPRESS)
    add("--port", type=int, help=argparse.SUPPRESS)
    add("--certificate", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        be_busy(options.client, options.port, options.certificate)
        return 0
    console = wide_console(140)
    console.print(f"{machine.facts()}\nPinning: {this_machines_pinning().note}.")

    def measure() -> bool:
        found = run(options)
        console.print(table(found, options))
        ours = [one.p99 for (_, server), one in found.items() if server == "greenroom"]
        return not ours or verdict("greenroom: /healthz beside any of them, p99 in ms", max(ours), most=MOST_MS)

    return ending(measure)


Found = dict[tuple[str, str], "Beside"]


@dataclass
class Beside:
    """Milliseconds that /healthz took while one client was busy, and how often that one connected."""

    milliseconds: list[float]
    connections: int

    @property
    def p99(self) -> float:
        return percentile(self.milliseconds, 99)


def run(options: argparse.Namespace) -> Found:
    found: Found = {}
    pinning = this_machines_pinning()
    with contextlib.ExitStack() as stack:
        stack.enter_context(running_on(pinning.load))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate, key = tls.make_certificate(folder)
        for name in options.servers:
            plain = gunicorn(name, APP)
            secure = replace(tls.with_tls(name, certificate, key), app=APP)
            secure.environment["WSGI_APP"] = APP
            for server, kinds in ((plain, ("none", *PLAIN)), (secure, (*TLS, *HTTP2))):
                asked = [kind for kind in options.kinds if kind in kinds]
                log = folder / f"{name}-{server is secure}.log"
                with serving(server, log=log, cores=pinning.server, environment={}, ready_path="/healthz") as running:
                    for kind in asked:
                        found[kind, name] = beside(running, kind, options.seconds, certificate)
    return found


def beside(running: RunningServer, kind: str, seconds: float, certificate: Path) -> Beside:
    command = [sys.executable, "-m", "benchmarks.beside", "--client", kind, "--port", str(running.port)]
    command += ["--certificate", str(certificate)] if kind in TLS or kind in HTTP2 else []
    connect = connecting(running.port, certificate if kind in TLS or kind in HTTP2 else None)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            client.stdout.readline()  # it has begun
            time.sleep(LEAD_SECONDS)
            milliseconds = ask(connect, seconds)
        finally:
            client.terminate()
        connections = sum(1 for _ in client.stdout) + 1
    return Beside(milliseconds, connections)


def connecting(port: int, certificate: Path | None, *protocols: str) -> Callable[[], socket.socket]:
    context = None if certificate is None else tls.client_context(certificate, *protocols)

    def connect() -> socket.socket:
        sock = socket.create_connection((HOST, port), timeout=60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock if context is None else context.wrap_socket(sock)

    return connect


def ask(connect: Callable[[], socket.socket], seconds: float) -> list[float]:
    took: list[float] = []
    began = time.monotonic()
    kept = connect()
    for number in range(int(seconds * RATE)):
        due = began + number / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        if number % FRESH_EVERY == 0:
            with connect() as fresh:
                health(fresh)
        else:
            health(kept)
        took.append((time.monotonic() - due) * 1000)
        if time.monotonic() - began > 3 * seconds:
            break
    kept.close()
    return took


def health(sock: socket.socket) -> None:
    sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(BODY):
        part = sock.recv(READ_BYTES)
        if not part:
            raise ServerFailed(f"the server closed a connection instead of an answer: {answer!r}")
        answer += part


def be_busy(kind: str, port: int, certificate: Path | None) -> None:
    """The process of the client: a line for each time that it connects."""
    os.nice(CLIENT_NICE)  # its core is shared with those who measure
    connect = connecting(port, certificate, *(["h2"] if kind in HTTP2 else []))
    do = {**PLAIN, **TLS, **HTTP2}.get(kind, sleep)
    while True:
        print("connects", flush=True)
        with contextlib.suppress(OSError), connect() as sock:
            do(sock)


def sleep(sock: socket.socket) -> None:
    time.sleep(3600)


def table(found: Found, options: argparse.Namespace) -> Table:
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column("busy client", no_wrap=True)
    for name in options.servers:
        result.add_column(f"{name}: p99 ms", justify="right")
        result.add_column("longest", justify="right")
        result.add_column("asked", justify="right")
        result.add_column("connections", justify="right")
    for kind in options.kinds:
        row = [kind]
        for name in options.servers:
            one = found[kind, name]
            row += [f"{one.p99:.1f}", f"{max(one.milliseconds):.0f}", str(len(one.milliseconds)), str(one.connections)]
        result.add_row(*row)
    return result


if __name__ == "__main__":
    sys.exit(main())
