"""Processes that share one server: the last one stops it, and one that was killed is in nobody's way."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from devdb.cluster import PORT, Cluster
from devdb.programs import ClusterError, server_ids
from devdb.server import EmbeddedPostgres, EmbeddedPostgresError

from .asking import MAY_FORK, rows

ROOT = Path(__file__).resolve().parents[3]
LONG_WAIT = 30.0
# Starts the server in the folder named, says so, and holds it until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from devdb.server import EmbeddedPostgres
print(EmbeddedPostgres(Path(sys.argv[1])).start(), flush=True)
sys.stdin.read()
"""
pytestmark = pytest.mark.live


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`hold(folder)`: another process that holds the server; it is ended by closing its standard input."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, **options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(LONG_WAIT)
        process.stdin.close()
        process.stdout.close()


def leave(process: subprocess.Popen[str]) -> None:
    process.stdin.close()
    process.wait(LONG_WAIT)


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + LONG_WAIT
    while not condition():
        assert time.monotonic() < give_up_at, "the condition did not come true"
        time.sleep(0.02)


def test_last_one_to_leave_stops_the_server(
    postgres: EmbeddedPostgres, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    url = postgres.start()
    other = hold(postgres.folder)
    assert other.stdout.readline().strip() == url

    leave(other)
    assert rows(url, "SELECT 1") == [(1,)], "it was stopped while we still hold it"
    postgres.stop()

    assert not postgres.is_alive()


def test_first_one_to_leave_does_not_stop_it_for_the_others(
    postgres: EmbeddedPostgres, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    url = postgres.start()
    other = hold(postgres.folder)
    other.stdout.readline()

    postgres.stop()

    assert rows(url, "SELECT 1") == [(1,)]
    leave(other)
    assert not postgres.is_alive()


def test_two_handles_in_one_process_are_two_holders(postgres: EmbeddedPostgres) -> None:
    url = postgres.start()
    second = EmbeddedPostgres(postgres.folder)
    second.start()

    second.stop()
    second.stop()  # twice does no harm

    assert rows(url, "SELECT 1") == [(1,)]


@pytest.mark.filterwarnings(MAY_FORK)
def test_forked_child_that_exits_does_not_stop_it(postgres: EmbeddedPostgres) -> None:
    url = postgres.start()
    pid = os.fork()
    if pid == 0:
        try:
            postgres.stop()  # as atexit would
        finally:
            os._exit(0)

    os.waitpid(pid, 0)

    assert rows(url, "SELECT 1") == [(1,)]


def test_start_brings_back_a_killed_server_with_its_data(postgres: EmbeddedPostgres) -> None:
    url = postgres.start()
    rows(url, "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    os.kill(postgres.cluster.postmaster().pid, signal.SIGKILL)
    wait_until(lambda: not postgres.is_alive())

    again = postgres.start()

    assert again == url
    assert rows(again, "SELECT answer FROM kept") == [(42,)]


def test_killing_server_and_holder_leaves_nothing_in_the_way(
    postgres: EmbeddedPostgres, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    holder = hold(postgres.folder)
    rows(holder.stdout.readline().strip(), "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    holder.kill()
    os.kill(postgres.cluster.postmaster().pid, signal.SIGKILL)

    url = postgres.start()

    assert rows(url, "SELECT answer FROM kept") == [(42,)]


def test_server_of_a_killed_holder_is_found_and_stopped_by_the_next(
    postgres: EmbeddedPostgres, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    holder = hold(postgres.folder)
    holder.stdout.readline()
    pid = postgres.cluster.postmaster().pid
    holder.kill()
    holder.wait(LONG_WAIT)

    postgres.start()

    assert postgres.cluster.postmaster().pid == pid
    postgres.stop()
    assert not postgres.is_alive()


@pytest.mark.parametrize(
    "content",
    ["", "4", "not a number\n", f"{os.getpid()}\n/somewhere\n1\n5432\n/tmp\n\n 1 1\nready\n", "999999999\n"],
    ids=["empty", "cut short", "garbage", "another live process", "no such process"],
)
def test_stale_pid_file_does_not_keep_it_from_starting(postgres: EmbeddedPostgres, content: str) -> None:
    (postgres.folder / "postmaster.pid").write_text(content)

    url = postgres.start()

    assert rows(url, "SELECT 1") == [(1,)]


def test_number_of_a_killed_server_may_be_another_servers_by_now(postgres: EmbeddedPostgres) -> None:
    """PostgreSQL believes its socket's lock, too, where a process of its own user has that number."""
    postgres.start()
    lock = postgres.cluster.socket_folder() / f".s.PGSQL.{PORT}.lock"
    postgres.cluster.postmaster().kill()
    wait_until(lambda: not postgres.is_alive())
    ids = server_ids(postgres.folder)
    as_user = {"user": ids[0], "group": ids[1], "extra_groups": []} if ids else {}
    other = subprocess.Popen(["sleep", "100"], **as_user)
    try:
        lock.write_text("\n".join([str(other.pid), *lock.read_text().splitlines()[1:]]) + "\n")

        assert rows(postgres.start(), "SELECT 1") == [(1,)]
    finally:
        other.kill()
        other.wait()


@pytest.mark.filterwarnings(MAY_FORK)
def test_zombie_in_the_pid_file_counts_as_dead(postgres: EmbeddedPostgres) -> None:
    zombie = os.fork()
    if zombie == 0:
        os._exit(0)
    wait_until(lambda: psutil.Process(zombie).status() == psutil.STATUS_ZOMBIE)
    (postgres.folder / "postmaster.pid").write_text(f"{zombie}\n{postgres.folder}\n1\n5432\n{postgres.folder}\n")

    try:
        url = postgres.start()
    finally:
        os.waitpid(zombie, 0)

    assert rows(url, "SELECT 1") == [(1,)]


def test_settings_meant_for_another_server_are_not_used(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGHOST": "192.0.2.1", "PGUSER": "nobody", "PGDATA": "/nowhere"}.items():
        monkeypatch.setenv(name, value)

    assert rows(postgres.start(), "SELECT current_user") == [("postgres",)]


def test_two_processes_that_start_at_once_share_a_new_server(hold: Callable[..., subprocess.Popen[str]]) -> None:
    base = Path(tempfile.mkdtemp(prefix="boards-test-"))
    holders = [hold(base / "new" / "postgres") for _ in range(2)]

    urls = {holder.stdout.readline().strip() for holder in holders}

    assert len(urls) == 1
    assert rows(urls.pop(), "SELECT 1") == [(1,)]
    for holder in holders:
        leave(holder)
    assert not EmbeddedPostgres(base / "new" / "postgres").is_alive()
    shutil.rmtree(base)


def test_path_too_long_for_a_socket_gets_a_private_folder_elsewhere(cluster_folder: Path) -> None:
    deep = cluster_folder.parent / ("deep-" + "x" * 90)
    deep.mkdir()
    shutil.move(cluster_folder, deep / "postgres")
    postgres = EmbeddedPostgres(deep / "postgres")
    try:
        url = postgres.start()
        folder = postgres.cluster.socket_folder()

        assert rows(url, "SELECT 1") == [(1,)]
        assert folder != postgres.folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        postgres.stop()
        shutil.move(deep / "postgres", cluster_folder)
        folder.rmdir()


def test_socket_folder_that_others_may_enter_is_refused(cluster_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = cluster_folder.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    cluster = Cluster(cluster_folder.parent / ("long-" + "x" * 90))
    cluster.socket_folder().mkdir(mode=0o755)

    with pytest.raises(ClusterError, match="is not ours alone"):
        cluster._listen_options()


def test_start_that_fails_shows_the_log_and_lets_go(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devdb.server.RETRY_FOR_SECONDS", 0.0)
    settings = postgres.folder / "postgresql.auto.conf"
    before = settings.read_text()
    settings.write_text("no_such_setting = 1\n")
    try:
        with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
            postgres.start()
    finally:
        settings.write_text(before)

    assert rows(postgres.start(), "SELECT 1") == [(1,)]


def test_creation_that_was_killed_half_way_is_begun_anew(hold: Callable[..., subprocess.Popen[str]]) -> None:
    base = Path(tempfile.mkdtemp(prefix="boards-test-"))
    (base / "postgres.unfinished").mkdir()
    (base / "postgres.unfinished" / "PG_VERSION").write_text("18\n")
    (base / "postgres").mkdir()  # empty, as a volume just mounted would be

    Cluster(base / "postgres").create()

    assert (base / "postgres" / "global" / "pg_control").exists()
    assert not (base / "postgres.unfinished").exists()
    shutil.rmtree(base)
