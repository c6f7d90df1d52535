"""The embedded PostgreSQL, for real: each test starts, kills or shares a server of its own."""

import os
import pwd
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
import psycopg2
import pytest

from devdb import programs
from devdb.cluster import Cluster
from devdb.programs import ClusterError
from devdb.server import EmbeddedPostgres, EmbeddedPostgresError

ROOT = Path(__file__).resolve().parents[2]
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
is_root = hasattr(os, "geteuid") and os.geteuid() == 0
MAY_FORK = "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
needs_root = pytest.mark.skipif(not is_root, reason="needs root: the server runs as another user only then")


@pytest.fixture(scope="module")
def cluster_folder() -> Iterator[Path]:
    """A data folder for the tests of this file: making one takes longer than starting it five times."""
    base = Path(tempfile.mkdtemp(prefix="boards-test-"))
    Cluster(base / "postgres").create()
    yield base / "postgres"
    shutil.rmtree(base)


@pytest.fixture
def postgres(cluster_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A handle on that folder's server, which is down; it is brought down again."""
    handle = EmbeddedPostgres(cluster_folder)
    yield handle
    handle.stop()
    handle.cluster.stop()


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


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url, connect_timeout=5)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


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


@needs_root
def test_as_root_folders_above_stay_closed_and_the_server_works_all_the_same(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    folder = closed / "instance" / "postgres"
    tmp_path.chmod(0o700)
    postgres = EmbeddedPostgres(folder)
    try:
        for _ in range(2):  # new, and found
            assert rows(postgres.start(), "SELECT 1") == [(1,)]
            assert EmbeddedPostgres(folder).is_alive()
            postgres.stop()
            assert not postgres.is_alive()
    finally:
        postgres.stop()

    assert [stat.S_IMODE(parent.stat().st_mode) for parent in (closed, tmp_path)] == [0o700, 0o700]


@needs_root
@pytest.mark.filterwarnings(MAY_FORK)
def test_as_root_programs_that_cannot_be_reached_are_copied_once(tmp_path: Path) -> None:
    """A clone, with its virtual environment, in a home that is closed to others."""
    closed, temporary = tmp_path / "closed", Path(tempfile.mkdtemp(prefix="greenroom-", dir="/tmp"))
    temporary.chmod(0o755)
    installed = programs.runnable_package(None)
    for part in (installed, programs.libraries_of(installed)):
        shutil.copytree(part, closed / part.name, symlinks=True)
    closed.chmod(0o700)
    ids = programs.server_ids(tmp_path)
    assert ids is not None
    try:
        copy = programs.package_for(ids, closed / installed.name, temporary)
        version = subprocess.run(
            [copy / "pginstall18" / "bin" / "postgres", "--version"],
            user=ids[0], group=ids[1], extra_groups=[], cwd="/", capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        again = programs.package_for(ids, closed / installed.name, temporary)
        copy.parent.chmod(0o777)
        with pytest.raises(ClusterError, match="is not ours alone"):
            programs.package_for(ids, closed / installed.name, temporary)
    finally:
        shutil.rmtree(temporary)

    assert "PostgreSQL" in version
    assert again == copy
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
@pytest.mark.filterwarnings(MAY_FORK)
def test_works_as_a_normal_user() -> None:
    nobody = pwd.getpwnam("nobody")
    if programs.closed_to((nobody.pw_uid, nobody.pw_gid), programs.runnable_package(None)):
        pytest.skip("this checkout lies in a folder that a normal user may not pass")
    base = Path(tempfile.mkdtemp(prefix="boards-test-"))
    shutil.chown(base, "nobody")

    def use() -> None:
        postgres = EmbeddedPostgres(base / "postgres")
        assert rows(postgres.start(), "SELECT 1") == [(1,)]
        assert (base / "postgres").owner() == "nobody"
        postgres.stop()
        assert not postgres.is_alive()

    assert as_nobody(use) == ""
    shutil.rmtree(base)


@needs_root
@pytest.mark.filterwarnings(MAY_FORK)
def test_data_of_another_user_is_a_clear_error(cluster_folder: Path) -> None:
    error = as_nobody(lambda: EmbeddedPostgres(cluster_folder).start())

    assert "Permission denied" in error
    assert "made by another user?" in error


def as_nobody(call: Callable[[], object]) -> str:
    """Run `call` in a child process of an unprivileged user; returns its error, empty when there was none."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            call()
        except BaseException as exc:
            os.write(writing, f"{type(exc).__name__}: {exc}".encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading) as pipe:
        return pipe.read()
