"""Replacing workers under load, and counting what clients lose: `python -m benchmarks.rolling`.

Keep-alive connections send at random moments (exponential pauses), together at a share of what the server can do, while
its workers are replaced in three ways, one after the other: by max_requests all the time, by a HUP every few seconds,
by a SIGTERM to one worker after the other. Each request is sent once; whatever is not a whole answer 200 is counted:

    refused    no connection            reset      the connection was reset before the answer was there
    empty      closed without a byte    cut        closed in the middle
    timeout    no answer in time        status     another answer than 200 or 503

A connection that the server closes while no request is under way is no loss: the client opens another. Neither is a
503: turning a request away is an answer. It is shown, because a server that sheds here is too small for the rate.
"""

import argparse
import heapq
import random
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .client import RECEIVE_BYTES, AnswerParser, MalformedAnswer
from .machine import verdict
from .servers import HOST, gunicorn, serving

APP = "benchmarks.apps.pid:app"
TIMEOUT_SECONDS = 10.0
MOST_DETAILS = 10
LOSSES = ("refused", "reset", "empty", "cut", "timeout", "status")


@dataclass
class Count:
    """The clients' counts. `by_worker`: answers by what the body said."""

    answered: int = 0
    shed: int = 0
    closed_idle: int = 0
    losses: Counter[str] = field(default_factory=Counter)
    # For each loss: what it was, seconds since the load began, since its request was sent, requests that its connection
    # had carried before.
    details: list[tuple[str, float, float, int]] = field(default_factory=list)
    by_worker: Counter[bytes] = field(default_factory=Counter)
    slowest_seconds: float = 0.0

    @property
    def lost(self) -> int:
        return self.losses.total()


class Client:
    """One connection, one request at a time. `pause` gives the seconds between an answer and the next request."""

    def __init__(self, load: "Load", pause: Callable[[], float]) -> None:
        self.load = load
        self.pause = pause
        self.sock: socket.socket | None = None
        self.parser: AnswerParser | None = None
        self.received = 0
        self.sent_at = 0.0
        self.carried = 0

    def send(self, now: float) -> None:
        self.sent_at, self.received, self.parser = now, 0, AnswerParser()
        try:
            if self.sock is None:
                self.sock = socket.create_connection((HOST, self.load.port), timeout=TIMEOUT_SECONDS)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.load.selector.register(self.sock, selectors.EVENT_READ, self)
            self.sock.sendall(self.load.request)
        except ConnectionRefusedError:
            self.lose("refused")
        except TimeoutError:
            self.lose("timeout")
        except OSError:
            self.lose("reset")

    def on_readable(self) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except OSError:
            if self.parser is None:
                self.load.count.closed_idle += 1
                self.disconnect()
            else:
                self.lose("reset")
            return
        if self.parser is None:
            self.load.count.closed_idle += 1
            self.disconnect()
        elif not data:
            self.lose("cut" if self.received else "empty")
        else:
            self.received += len(data)
            self.take(data)

    def take(self, data: bytes) -> None:
        assert self.parser is not None
        try:
            if not self.parser.feed(data):
                return
        except MalformedAnswer:
            self.lose("cut")
            return
        parser, self.parser = self.parser, None
        self.carried += 1
        if parser.status == 503:
            self.load.count.shed += 1
        elif parser.status != 200:
            self.load.count.losses["status"] += 1
        else:
            self.load.count.answered += 1
            self.load.count.by_worker[parser.body] += 1
        self.load.count.slowest_seconds = max(self.load.count.slowest_seconds, time.monotonic() - self.sent_at)
        if not parser.keeps_connection:
            self.disconnect()
        self.load.plan(self)

    def lose(self, what: str) -> None:
        count, now = self.load.count, time.monotonic()
        count.losses[what] += 1
        count.details.append((what, now - self.load.began, now - self.sent_at, self.carried))
        self.parser = None
        self.disconnect()
        self.load.plan(self)

    def disconnect(self) -> None:
        if self.sock is not None:
            self.load.selector.unregister(self.sock)
            self.sock.close()
            self.sock = None
            self.carried = 0


class Load:
    """`clients` connections that together send `rate` requests a second; 0: as fast as they get answers."""

    def __init__(self, port: int, clients: int, rate: float, seed: int = 1) -> None:
        self.port = port
        self.began = time.monotonic()
        self.request = f"GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode()
        self.selector = selectors.DefaultSelector()
        self.count = Count()
        self.random = random.Random(seed)
        self.planned: list[tuple[float, int, Client]] = []
        mean_seconds = clients / rate if rate else 0.0
        self.clients = [Client(self, lambda: self.random.expovariate(1) * mean_seconds) for _ in range(clients)]
        for client in self.clients:
            self.plan(client)

    def plan(self, client: Client) -> None:
        heapq.heappush(self.planned, (time.monotonic() + client.pause(), id(client), client))

    def run(self, is_over: Callable[[Count], bool]) -> None:
        """Send until `is_over`, then wait for the answers that are still to come."""
        while not is_over(self.count):
            self.turn(sends=True)
        while any(client.parser for client in self.clients):
            self.turn(sends=False)

    def turn(self, *, sends: bool) -> None:
        now = time.monotonic()
        wait = 0.02
        if sends and self.planned:
            wait = min(wait, max(0.0, self.planned[0][0] - now))
        for key, _ in self.selector.select(wait):
            key.data.on_readable()
        now = time.monotonic()
        while sends and self.planned and self.planned[0][0] <= now:
            heapq.heappop(self.planned)[2].send(now)
        for client in self.clients:
            if client.parser and now - client.sent_at > TIMEOUT_SECONDS:
                client.lose("timeout")

    def close(self) -> None:
        for client in self.clients:
            client.disconnect()
        self.selector.close()


def workers_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]


class Disturbance:
    """Something done to the server every `every_seconds`; `act` gets the arbiter's pid."""

    def __init__(self, every_seconds: float, act: Callable[[int], None]) -> None:
        self.every_seconds = every_seconds
        self.act = act
        self.next_at = time.monotonic() + every_seconds

    def step(self, pid: int) -> None:
        if time.monotonic() >= self.next_at:
            self.next_at = time.monotonic() + self.every_seconds
            self.act(pid)


def hang_up(pid: int) -> None:
    psutil.Process(pid).send_signal(signal.SIGHUP)


def stop_oldest(pid: int) -> None:
    psutil.Process(min(workers_of(pid), key=lambda worker: psutil.Process(worker).create_time())).terminate()


WAYS: dict[str, tuple[dict[str, str], Callable[[], Disturbance]]] = {
    "max_requests": ({"GREENROOM_MAX_REQUESTS": "2000"}, lambda: Disturbance(3600, hang_up)),
    "HUP": ({}, lambda: Disturbance(4.0, hang_up)),
    "SIGTERM": ({}, lambda: Disturbance(3.0, stop_oldest)),
}


def measure(worker_class: str, way: str, arguments: argparse.Namespace) -> Count:
    """One way of replacing workers, on a server of its own."""
    environment, make = WAYS[way]
    server = gunicorn(worker_class, APP, {"WEB_CONCURRENCY": str(arguments.workers), **environment})
    everywhere = frozenset(psutil.Process().cpu_affinity() or ())
    with (
        tempfile.NamedTemporaryFile(suffix=".log") as log,
        serving(server, log=Path(log.name), cores=everywhere, environment={}, ready_path="/healthz") as running,
    ):
        rate = arguments.rate or arguments.share * capacity(running.port, arguments.clients)
        load = Load(running.port, arguments.clients, rate)
        disturbance = make()

        def is_over(count: Count) -> bool:
            disturbance.step(running.process.pid)
            return count.answered + count.shed + count.lost >= arguments.requests

        began = time.monotonic()
        load.run(is_over)
        seconds = time.monotonic() - began
        load.close()
    count = load.count
    told = ", ".join(f"{count.losses[loss]} {loss}" for loss in LOSSES)
    print(
        f"{worker_class:10} {way:13} {count.answered:7} answered by {len(count.by_worker):3} workers "
        f"at {count.answered / seconds:6.0f}/s, slowest {count.slowest_seconds * 1000:5.0f} ms, {count.shed} shed; "
        f"lost: {told}",
        flush=True,
    )
    for what, at, after, carried in count.details[:MOST_DETAILS]:
        when = f"{at:.2f} s, {after * 1000:.1f} ms after it was sent"
        print(f"    {what} at {when}, request {carried + 1} of its connection")
    return count


def capacity(port: int, clients: int, seconds: float = 3.0) -> float:
    """Requests a second when everybody sends as fast as they get answers."""
    load = Load(port, clients, 0.0)
    end = time.monotonic() + seconds
    load.run(lambda _: time.monotonic() > end)
    load.close()
    if not load.count.answered:
        raise SystemExit(f"no request was answered in {seconds:g} s: {dict(load.count.losses)}, {load.count.shed} shed")
    return load.count.answered / seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rolling", description=__doc__.splitlines()[0])
    parser.add_argument("--worker-classes", nargs="+", default=["greenroom", "gevent"])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--requests", type=int, default=20_000, help="for each way")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--share", type=float, default=0.7, help="of the capacity")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second, instead of a share")
    arguments = parser.parse_args()
    totals = {worker_class: Count() for worker_class in arguments.worker_classes}
    for way in arguments.ways:
        for worker_class, total in totals.items():
            count = measure(worker_class, way, arguments)
            total.answered += count.answered
            total.shed += count.shed
            total.losses += count.losses
    reached = {
        worker_class: verdict(
            f"{worker_class}: requests lost of {total.answered + total.shed + total.lost:,}, {total.shed} of them shed",
            total.lost,
            most=0,
        )
        for worker_class, total in totals.items()
    }
    return 0 if reached.get("greenroom", True) else 1


if __name__ == "__main__":
    sys.exit(main())
