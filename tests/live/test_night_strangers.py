"""Troubles that somebody thought of who had not read the rules, staged for real; and what is no trouble.

    python -m pytest -m nightly tests/live/test_night_strangers.py [-rP to see all that the page said]

As in test_night, each test says what an operator has to read to know the cause; and nothing else may have stood first.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest
import requests

from .night import Night, Postgres, night, peer, postgres
from .staging import clients, slow_upstream

pytestmark = pytest.mark.nightly
APP = "tests.live.apps.strangers:app"
LINE = r"tests/live/apps/strangers\.py:\d+"
OK = ("/ok", 2, 0.1)
DRIVERS = pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
QUOTA = Path("/sys/fs/cgroup/cpu")


@contextmanager
def stranger(
    folder: Path, environ: Mapping[str, str] | None = None, prefix: Sequence[str] = (), workers: int = 2
) -> Iterator[Night]:
    with night(folder, environ, prefix=prefix, workers=workers, app=APP) as stage:
        yield stage


@contextmanager
def with_items(folder: Path, driver: str, slots: int = 100) -> Iterator[tuple[Postgres, dict[str, str]]]:
    with postgres(folder, slots=slots) as server:
        with psycopg2.connect(plain(server)) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE items (id int); INSERT INTO items VALUES (1)")
        yield server, {"STRANGERS_DATABASE_URL": server.url("postgres").replace("psycopg2", driver)}


def plain(server: Postgres) -> str:
    return server.url("postgres").replace("+psycopg2", "")


def test_listening_is_no_trouble(tmp_path: Path) -> None:
    listening = [(f"/listen/{kind}", 4, 0.1) for kind in ("event", "condition", "queue")]
    with stranger(tmp_path) as stage, clients(stage.url, *listening, OK):
        stage.stays_well(25.0)


@DRIVERS
def test_migration_locks_a_table(tmp_path: Path, driver: str) -> None:
    with with_items(tmp_path, driver) as (server, environ), stranger(tmp_path, environ) as stage:
        with psycopg2.connect(plain(server)) as migration, clients(stage.url, ("/items", 8, 0.1), OK):
            time.sleep(5)
            with migration.cursor() as cursor:
                cursor.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
                stage.is_named(r"database", r"[Ll]ock", r"pg_blocking_pids", LINE, r"/items")
                migration.rollback()
    assert stage.stood_first() <= {"query"}


@DRIVERS
def test_connection_is_kept_across_a_call(tmp_path: Path, driver: str) -> None:
    with with_items(tmp_path, driver) as (_, environ), slow_upstream() as upstream:
        with stranger(tmp_path, {**environ, "UPSTREAM_URL": upstream}) as stage:
            with clients(stage.url, ("/sell", 24), OK):
                stage.is_named(r"pool is the bottleneck", LINE, r"/sell", upstream[7:], r"commit\(\)")
    assert stage.stood_first() <= {"held", "pool"}


@DRIVERS
def test_firewall_forgets_connections(tmp_path: Path, driver: str) -> None:
    """What is sent on those that were there gets no answer; new ones work."""
    with with_items(tmp_path, driver) as (server, environ), forgetful(server.port) as (port, forgets):
        environ = {name: url.replace(f":{server.port}/", f":{port}/") for name, url in environ.items()}
        with stranger(tmp_path, environ) as stage, clients(stage.url, ("/items", 8, 0.1), OK):
            time.sleep(4)
            forgets()
            stage.is_named(r"PostgreSQL|database", r"firewall|PgBouncer", first=False)
    assert stage.stood_first() <= {"database_silent", "database_connections", "query"}


@contextmanager
def forgetful(port: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """A way to a port that can forget the connections which go through it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    current = [threading.Event()]
    opened: list[socket.socket] = []

    def pump(source: socket.socket, target: socket.socket, is_forgotten: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not is_forgotten.is_set():
                    target.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                opened.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=(*pair, current[-1]), daemon=True).start()

    def forget() -> None:
        current.append(threading.Event())
        current[-2].set()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], forget
    finally:
        for one in (listener, *opened):
            one.close()


def test_psycopg3_finds_no_connection_slot(tmp_path: Path) -> None:
    with with_items(tmp_path, "psycopg", slots=12) as (server, environ), stranger(tmp_path, environ) as stage:
        others = []
        with suppress(psycopg2.OperationalError):
            for _ in range(20):
                others.append(psycopg2.connect(plain(server)))
        with clients(stage.url, ("/items", 6, 0.1), OK):
            stage.is_named(r"too many clients|connection slots", LINE, r"no free connection slot")
        for one in others:
            one.close()


def test_places_of_a_semaphore_do_not_come_back(tmp_path: Path) -> None:
    with stranger(tmp_path, workers=1) as stage, clients(stage.url, ("/slot", 6, 0.1), OK):
        for _ in range(3):
            with suppress(requests.RequestException):
                requests.get(f"{stage.url}/slot?bad=1", timeout=1)
        stage.is_named(rf"semaphore at {LINE}", r"slots of ", r"none was given back", r"release\(\)")
    assert stage.stood_first() <= {"semaphore", "lock"}


def test_threads_do_not_end(tmp_path: Path) -> None:
    with stranger(tmp_path) as stage, clients(stage.url, ("/thread", 4, 0.05), OK):
        stage.is_named(rf"Threads that are started at {LINE} do not end")


def test_programs_do_not_end(tmp_path: Path) -> None:
    with stranger(tmp_path) as stage, clients(stage.url, ("/program", 2, 0.1), OK):
        stage.is_named(r"Child processes \(sleep\)", r"subprocess\.run")


def test_answer_that_drips_in_is_one_wait(tmp_path: Path) -> None:
    with peer("drip") as upstream, stranger(tmp_path, {"UPSTREAM_URL": upstream.url}) as stage:
        with clients(stage.url, ("/stock", 8, 0.1), OK):
            stage.is_named(rf"127.0.0.1:{upstream.port} is slow", LINE, r"/stock")
    assert stage.stood_first() <= {"upstream", "upstream_silent"}


def test_clients_give_up_and_ask_again(tmp_path: Path) -> None:
    with slow_upstream() as upstream, stranger(tmp_path, {"UPSTREAM_URL": upstream}) as stage:
        with impatient(f"{stage.url}/stock", 20), clients(stage.url, OK):
            stage.is_named(r"given up by their clients", r"/stock", upstream[7:], first=False)
    assert stage.stood_first() <= {"upstream", "upstream_silent", "given_up"}


@contextmanager
def impatient(url: str, count: int) -> Iterator[None]:
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.is_set():
            with suppress(requests.RequestException):
                requests.get(url, timeout=1)

    for _ in range(count):
        threading.Thread(target=ask, daemon=True).start()
    try:
        yield
    finally:
        stopping.set()


def test_log_that_is_written_much_is_not_one_that_nobody_reads(tmp_path: Path) -> None:
    with stranger(tmp_path) as stage, clients(stage.url, ("/noisy", 2, 0.2), OK):
        stage.is_named(LINE, r"/noisy", first=False)
    assert not any("nobody reads" in said for said in stage.said)


def test_reload_with_a_configuration_that_can_not_be_read(tmp_path: Path) -> None:
    conf = tmp_path / "gunicorn.conf.py"
    conf.write_text("import os, greenroom.configuration as ours\nglobals().update(ours.configure(os.environ))\n")
    command = ("sh", "-c", f'cd {tmp_path}; exec "$0" "$@"')
    with stranger(tmp_path, {"PYTHONPATH": os.getcwd()}, prefix=command) as stage, clients(stage.url, OK):
        conf.write_text("threads = (1\n")
        os.kill(stage.server.process.pid, signal.SIGHUP)
        stage.is_named(r"changed nothing", r"SyntaxError", r"go on as they are")


def test_deploy_with_another_secret(tmp_path: Path) -> None:
    """Sessions that were good are refused from then on."""
    secret = tmp_path / "secret"
    secret.write_text("one")
    with stranger(tmp_path, {"STRANGERS_SECRET": str(secret)}) as stage, clients(stage.url, OK), users(stage.url, 6):
        time.sleep(45)  # what is usual has to be known
        secret.write_text("two")
        os.kill(stage.server.process.pid, signal.SIGHUP)
        stage.is_named(r"answers of /me", r"4xx", r"SECRET_KEY", first=False)


@contextmanager
def users(url: str, count: int) -> Iterator[None]:
    """They are logged in, and look again and again."""
    stopping = threading.Event()

    def look() -> None:
        with requests.Session() as session, suppress(requests.RequestException):
            session.get(f"{url}/login", timeout=20)
            while not stopping.wait(0.2):
                session.get(f"{url}/me", timeout=20)

    for _ in range(count):
        threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        stopping.set()


@pytest.mark.skipif(not os.access(QUOTA, os.W_OK), reason="no control group can be made here")
def test_cpu_quota_stops_the_workers(tmp_path: Path) -> None:
    group = QUOTA / f"strangers-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("20000")
        prefix = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$0" "$@"')
        with stranger(tmp_path, prefix=prefix) as stage, clients(stage.url, ("/compute", 6, 0.05), OK):
            stage.is_named(r"CPU quota of 0\.2 cores stops the workers", r"Raise the quota")
    finally:
        time.sleep(0.5)  # until the kernel has forgotten the processes
        group.rmdir()
