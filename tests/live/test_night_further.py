"""Troubles of a list that no rule was written for, staged for real; the page names each within a minute.

    python -m pytest -m nightly tests/live/test_night_further.py [-rP to see all that the page said]

As in test_night, each test says what an operator has to read to know the cause.
"""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import psycopg2
import pytest

from tests.support import self_signed

from .conftest import free_port, wait_until
from .night import can_unshare, memory_group, night, peer, postgres
from .staging import clients

pytestmark = pytest.mark.nightly
LINE = r"tests/live/apps/night\.py:\d+"
OK = ("/ok", 2, 0.1)
REDIS = shutil.which("redis-server")


def test_kernel_kills_for_want_of_memory(tmp_path: Path) -> None:
    group = memory_group()
    if group is None:
        pytest.skip("no control group can be made here")
    try:
        prefix = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$0" "$@"')
        with night(tmp_path, prefix=prefix) as stage, clients(stage.url, ("/keep", 2, 0.02), OK):
            stage.is_named(
                r"the kernel killed it \(SIGKILL\), because memory was used up", "GREENROOM_WORKER_MEMORY_MB"
            )
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the server has ended")
        group.rmdir()


def test_name_server_does_not_answer(tmp_path: Path) -> None:
    if not can_unshare():
        pytest.skip("no mount namespace can be made here")
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.99\n")
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.99", 53))
    prefix = ("unshare", "-m", "sh", "-c", f'mount --bind {resolv} /etc/resolv.conf; exec "$0" "$@"')
    with silent, night(tmp_path, prefix=prefix) as stage, clients(stage.url, ("/name", 10, 0.1), OK):
        stage.is_named(r"name server", r"db\.internal\.example", LINE)


def test_certificate_of_an_upstream_is_not_trusted(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "rsa:2048")
    port = free_port()
    server = subprocess.Popen(
        ["openssl", "s_server", "-quiet", "-www", "-accept", str(port), "-key", str(key), "-cert", str(certificate)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with night(tmp_path, {"UPSTREAM_URL": f"https://localhost:{port}"}) as stage:
            with clients(stage.url, ("/up/1", 3, 0.2), OK):
                stage.is_named(rf"certificate of localhost:{port}", r"openssl s_client", LINE)
    finally:
        server.kill()
        server.wait()


def test_row_lock_of_a_forgotten_transaction(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        plain = server.url("postgres").replace("+psycopg2", "")
        with psycopg2.connect(plain) as zombie, zombie.cursor() as cursor:
            cursor.execute("CREATE TABLE stock (id int, n int); INSERT INTO stock VALUES (1, 0)")
            zombie.commit()
            with night(tmp_path, {"NIGHT_DATABASE_URL": server.url("postgres")}) as stage:
                cursor.execute("UPDATE stock SET n = 5 WHERE id = 1")
                with clients(stage.url, ("/write", 6, 0.1), OK):
                    stage.is_named(r"locks of rows", r"UPDATE stock", r"pg_blocking_pids", LINE)
                zombie.rollback()


def test_application_forgets_connections(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        environ = {"NIGHT_DATABASE_URL": server.url("postgres"), "NIGHT_POOL": "3"}
        with night(tmp_path, environ) as stage, clients(stage.url, ("/forgotten-connection", 12, 0.1), OK):
            stage.is_named(r"not given back", LINE, r"/forgotten-connection")


def test_password_of_the_database_has_changed(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        url = server.url("postgres")
        with night(tmp_path, {"NIGHT_DATABASE_URL": url.replace("postgres@", "shop@")}) as stage:
            with clients(stage.url, ("/query", 3, 0.2), OK):
                stage.is_named(r"refuses the login", r"role .shop. does not exist", LINE)


def test_table_is_missing_since_the_migration_was_not_run(tmp_path: Path) -> None:
    with postgres(tmp_path) as server, night(tmp_path, {"NIGHT_DATABASE_URL": server.url("postgres")}) as stage:
        with clients(stage.url, ("/write", 3, 0.2), OK):
            stage.is_named(r"UndefinedTable", r"stock", LINE, r"migration")


def test_database_is_read_only_after_a_failover(tmp_path: Path) -> None:
    with postgres(tmp_path) as server:
        with psycopg2.connect(server.url("postgres").replace("+psycopg2", "")) as plain, plain.cursor() as cursor:
            cursor.execute("CREATE TABLE stock (id int, n int); INSERT INTO stock VALUES (1, 0)")
            cursor.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
            plain.commit()
        with night(tmp_path, {"NIGHT_DATABASE_URL": server.url("postgres")}) as stage:
            with clients(stage.url, ("/write", 3, 0.2), OK):
                stage.is_named(r"ReadOnlySqlTransaction", LINE, r"read-only|standby|failover")


@pytest.mark.skipif(REDIS is None, reason="no redis-server here")
def test_redis_has_no_memory_left(tmp_path: Path) -> None:
    port = free_port()
    command = [str(REDIS), "--port", str(port), "--save", "", "--maxmemory", "3mb", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with night(tmp_path, {"NIGHT_REDIS_URL": f"redis://127.0.0.1:{port}"}) as stage:
            with clients(stage.url, ("/redis", 4, 0.05), OK):
                stage.is_named(r"OOM command not allowed|OutOfMemory", r"maxmemory", LINE)
    finally:
        server.terminate()
        server.wait()


def test_upstream_limits_us(tmp_path: Path) -> None:
    with peer("429") as upstream, night(tmp_path, {"UPSTREAM_URL": upstream.url}) as stage:
        with clients(stage.url, ("/up/5", 4, 0.1), OK):
            stage.is_named(rf"127.0.0.1:{upstream.port} answers 429", LINE, r"less|limit|quota|often")


@pytest.mark.parametrize(
    ("mode", "words"), [("garbage", r"BadStatusLine|no HTTP"), ("cut", r"IncompleteRead|breaks off")]
)
def test_upstream_breaks_the_protocol(tmp_path: Path, mode: str, words: str) -> None:
    with peer(mode) as upstream, night(tmp_path, {"UPSTREAM_URL": upstream.url}) as stage:
        with clients(stage.url, ("/up/5", 4, 0.1), OK):
            stage.is_named(words, str(upstream.port), LINE)


def test_answer_of_an_upstream_comes_in_drips(tmp_path: Path) -> None:
    with peer("drip") as upstream, night(tmp_path, {"UPSTREAM_URL": upstream.url}) as stage:
        with clients(stage.url, ("/up/5", 8, 0.1), OK):
            stage.is_named(rf"127.0.0.1:{upstream.port}", r"longer than|slow")


def test_two_locks_in_both_orders(tmp_path: Path) -> None:
    with night(tmp_path, workers=1) as stage, clients(stage.url, ("/left", 3), ("/right", 3), OK):
        stage.is_named(r"Deadlock in worker 1", r"/left", r"/right", LINE)


def test_regular_expression_backtracks(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/regex", 1, 0.1), OK):
        stage.is_named(LINE, r"GIL", r"/regex", first=False)


def test_thread_of_the_application_spins(tmp_path: Path) -> None:
    with night(tmp_path, {"NIGHT_SPIN": "1"}) as stage, clients(stage.url, ("/ok", 6, 0.05)):
        stage.is_named(r"night\.py|refresh", first=False)


def test_import_in_a_request(tmp_path: Path) -> None:
    (tmp_path / "night_slow_module.py").write_text(
        "import time\nuntil = time.time() + 4\nwhile time.time() < until: pass\n"
    )
    with night(tmp_path, {"PYTHONPATH": str(tmp_path)}) as stage, clients(stage.url, ("/slow-import", 4, 0.3), OK):
        stage.is_named(r"night_slow_module\.py:\d|night\.py:\d+", r"import|blocked", first=False)


def test_file_comes_slowly(tmp_path: Path) -> None:
    """As over a network file system that hangs: nobody writes to the pipe."""
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    with night(tmp_path, {"NIGHT_FIFO": str(fifo)}) as stage, clients(stage.url, ("/slow-file", 6, 0.1), OK):
        stage.is_named(LINE, r"/slow-file", r"waits in C", r"A file is waited for")


def test_log_handler_waits_for_its_server(tmp_path: Path) -> None:
    with peer("full") as collector, night(tmp_path, {"NIGHT_LOG_PORT": str(collector.port)}) as stage:
        with clients(stage.url, ("/remote-log", 8, 0.05), OK):
            stage.is_named(rf"127\.0\.0\.1:{collector.port}|lock", LINE, r"/remote-log")


def test_child_processes_take_long(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/child", 12, 0.05), OK):
        stage.is_named(r"child processes", LINE, r"timeout=")


def test_worker_is_stopped_from_outside(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/ok", 6, 0.1)):
        worker = stage.server.workers()[0]
        worker.suspend()
        stage.is_named(rf"pid {worker.pid}\) was stopped from outside", rf"kill -CONT {worker.pid}")


def test_cookie_grows_until_it_is_refused(tmp_path: Path) -> None:
    with night(tmp_path) as stage, clients(stage.url, ("/cookie", 6, 0.05), OK):
        stage.is_named(r"header|cookie", r"larg|long|limit", first=False)
