"""How soon PostgreSQL is rid of the queries of requests that are over, and how soon all is well after a fault.

Parts of `python -m benchmarks.deadlines`, with its worker and its services.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import psycopg2

from devdb.server import EmbeddedPostgres

from .services import Bench

ACTIVE_MILLISECONDS = 200
RECOVERY_SECONDS = 2.0
WAYS = ("deadline", "client left")
BUDGET_MILLISECONDS = 300
# The budget of a request while something is out of order.
FAULTY_BUDGET = {"X-Request-Timeout-Ms": "1000"}
CLIENTS = 6
FAULT_SECONDS = 2.0
AFTERWARDS_SECONDS = 4.0
LOOK_SECONDS = 0.002
PATIENCE_SECONDS = 30.0


# Queries that nobody waits for


def active_after(bench: "Bench", rounds: int) -> dict[str, list[float]]:
    """Way to end -> for how many milliseconds PostgreSQL still ran the request's query after it was over.

    Counted by clocks on the client's side, so that the way there and back is in it.
    """
    with contextlib.closing(psycopg2.connect(bench.database_url)) as connection:
        connection.autocommit = True
        looking = connection.cursor()
        return {way: sorted(_active_after(bench, looking, way) for _ in range(rounds)) for way in WAYS}


def _active_after(bench: "Bench", looking: Any, way: str) -> float:
    budget = f"X-Request-Timeout-Ms: {BUDGET_MILLISECONDS}\r\n" if way == "deadline" else ""
    with socket.create_connection((bench.host, bench.port)) as client:
        began = time.monotonic()
        client.sendall(f"GET /wait/query HTTP/1.1\r\nHost: x\r\n{budget}\r\n".encode())
        _look_until(looking, is_active=True)
        if way == "deadline":
            time.sleep(max(0.0, began + BUDGET_MILLISECONDS / 1000 - time.monotonic()))
        else:
            client.close()
        over = time.monotonic()
        _look_until(looking, is_active=False)
        return (time.monotonic() - over) * 1000


def _look_until(looking: Any, *, is_active: bool) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        looking.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
            "AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
        )
        if bool(looking.fetchone()[0]) is is_active:
            return
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"waited {PATIENCE_SECONDS:g} s in vain for is_active={is_active}")
        time.sleep(LOOK_SECONDS)


# Faults


class Asking:
    """Clients that ask one service again and again; `answers` are (when it came, how long it took, its status)."""

    def __init__(self, bench: "Bench", service: str) -> None:
        self.bench = bench
        self.service = service
        self.over = threading.Event()
        self.answers: list[tuple[float, float, int]] = []
        self.threads = [threading.Thread(target=self._ask, args=[number]) for number in range(CLIENTS)]

    def _ask(self, client: int) -> None:
        number = 0
        while not self.over.wait(0.01):
            number += 1
            nonce, began = f"{client}-{number}", time.monotonic()
            status, body = self.bench.get(f"/ask/{self.service}/{nonce}", FAULTY_BUDGET)
            if status == 200 and json.loads(body) != {"nonce": nonce}:
                status = 0
            now = time.monotonic()
            self.answers.append((now, now - began, status))

    def __enter__(self) -> "Asking":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def last_bad(self) -> float:
        """When the last answer came that was not as it should be; 0 if there was none."""
        return max((when for when, _, status in self.answers if status != 200), default=0.0)


def faults(bench: "Bench", postgres: EmbeddedPostgres | None) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Name -> the service that is asked, and what makes the fault as long as its `with` lasts.

    Without `postgres`, a server that may be mistreated, only those of the other services.
    """
    found: dict[str, tuple[str, Callable[[], Any]]] = {
        "upstream hangs": ("upstream", lambda: upstream_is(bench, "hanging")),
        "upstream resets": ("upstream", lambda: upstream_is(bench, "resetting")),
        "DNS hangs": ("name", lambda: names_hang(bench)),
    }
    if postgres is not None:
        found |= {
            "PostgreSQL restarts": ("database", lambda: restarting(postgres)),
            "PostgreSQL stands still": ("database", lambda: standing_still(postgres)),
            "PostgreSQL is full": ("database", lambda: full(bench)),
        }
    return found


def recovery(bench: "Bench", service: str, fault: Callable[[], Any], seconds: float = FAULT_SECONDS) -> float:
    """Seconds from the fault's end to the last answer that was not as it should be; 0.0 if none came after it.

    Raises RuntimeError if the fault was not noticed at all.
    """
    with Asking(bench, service) as asking:
        time.sleep(0.5)
        began = time.monotonic()
        with fault():
            time.sleep(seconds)
        ended = time.monotonic()
        time.sleep(AFTERWARDS_SECONDS)
    if asking.last_bad() < began:
        raise RuntimeError("the fault did no harm, so nothing was measured")
    return max(0.0, asking.last_bad() - ended)


@contextlib.contextmanager
def upstream_is(bench: "Bench", what: str) -> Iterator[None]:
    bench.upstream.fault = what
    try:
        yield
    finally:
        bench.upstream.fault = ""


@contextlib.contextmanager
def names_hang(bench: "Bench") -> Iterator[None]:
    bench.get("/names/hang")
    try:
        yield
    finally:
        bench.get("/names/go")


@contextlib.contextmanager
def restarting(postgres: EmbeddedPostgres) -> Iterator[None]:
    postgres.cluster.stop()
    try:
        yield
    finally:
        postgres.start()


@contextlib.contextmanager
def standing_still(postgres: EmbeddedPostgres) -> Iterator[None]:
    postmaster = postgres.cluster.postmaster()
    assert postmaster is not None
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@contextlib.contextmanager
def full(bench: "Bench") -> Iterator[None]:
    """Others have all connections, those of the worker included."""
    taken = [psycopg2.connect(bench.database_url)]
    with taken[0].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with contextlib.suppress(psycopg2.OperationalError):
        while True:
            taken.append(psycopg2.connect(bench.database_url))
    try:
        yield
    finally:
        for connection in taken:
            connection.close()


# Reports


def verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "NOT reached"


def report_active(after: dict[str, list[float]]) -> bool:
    print(f"milliseconds until PostgreSQL ran nothing more of a request that was over; at most {ACTIVE_MILLISECONDS}")
    for way, found in after.items():
        is_reached = found[-1] <= ACTIVE_MILLISECONDS
        print(f"  {way:<12} p50 {found[len(found) // 2]:6.0f}   most {found[-1]:6.0f}   {verdict(is_reached)}")
    return all(found[-1] <= ACTIVE_MILLISECONDS for found in after.values())


def report_recovery(bench: "Bench", postgres: EmbeddedPostgres) -> bool:
    print(f"seconds from a fault's end to the last bad answer; at most {RECOVERY_SECONDS:g}")
    found = {}
    for name, (service, fault) in faults(bench, postgres).items():
        found[name] = recovery(bench, service, fault)
        print(f"  {name:<24} {found[name]:5.2f}   {verdict(found[name] <= RECOVERY_SECONDS)}", flush=True)
    return all(seconds <= RECOVERY_SECONDS for seconds in found.values())
