"""A worker of ours with the application that can be cut, and the services round it: PostgreSQL, Redis, an upstream."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
READY_SECONDS = 90.0


class Upstream:
    """`GET /echo/<nonce>/<ms>` answers the nonce after that time; anything else (a TLS handshake, say) is not answered.

    Runs in a thread of its own.
    """

    def __init__(self) -> None:
        self.connections: set[asyncio.StreamWriter] = set()
        self.loop = asyncio.new_event_loop()
        self.address = ""
        self.fault = ""  # "hanging": it does not answer; "resetting": it resets the connection instead
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=[started], daemon=True)
        self.thread.start()
        started.wait()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, HOST, 0, backlog=2048))
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        started.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                _, _, nonce, milliseconds = head.split(b" ", 2)[1].decode().split("/")
                answer_at = time.monotonic() + int(milliseconds) / 1000
                while (left := answer_at - time.monotonic()) > 0 and not (reader.at_eof() or reader.exception()):
                    await asyncio.sleep(min(left, 0.05))
                while self.fault == "hanging" and not (reader.at_eof() or reader.exception()):
                    await asyncio.sleep(0.01)
                if self.fault == "resetting":
                    writer.transport.abort()
                    return
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(nonce), nonce.encode()))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client has left, or is not one of HTTP
        finally:
            self.connections.discard(writer)
            writer.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


@contextlib.contextmanager
def redis_running(folder: Path) -> Iterator[str]:
    """Its URL; "" where there is no redis-server."""
    command = shutil.which("redis-server")
    if command is None:
        yield ""
        return
    port = free_port()
    arguments = ["--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", str(folder)]
    process = subprocess.Popen([command, *arguments], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: can_connect(port), "Redis is ready")
        yield f"redis://{HOST}:{port}/0"
    finally:
        process.terminate()
        process.wait()


@dataclass
class Bench:
    """The server under test and what stands round it."""

    port: int
    arbiter: subprocess.Popen[bytes]
    log: Path
    database_url: str
    upstream: Upstream
    has_redis: bool
    host: str = HOST

    def get(self, path: str, headers: dict[str, str] | None = None, timeout: float = 30.0) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/state")[1]))

    def active_queries(self) -> int:
        with contextlib.closing(psycopg2.connect(self.database_url)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
                "AND pid <> pg_backend_pid()"
            )
            row = cursor.fetchone()
        assert row is not None
        return int(row[0])


@contextlib.contextmanager
def bench_running(folder: Path, database_url: str, settings: dict[str, str] | None = None) -> Iterator[Bench]:
    """One worker of ours with the application that can be cut, ready. `database_url` as psycopg2 takes it."""
    with contextlib.closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS nonces (nonce text)")
    upstream, port, log = Upstream(), free_port(), folder / "server.log"
    with redis_running(folder) as redis_url, log.open("wb") as output:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")},
            "PYTHONPATH": str(ROOT / "benchmarks" / "apps"),
            "WSGI_APP": "cut:app",
            "WEB_CONCURRENCY": "1",
            "GREENROOM_BIND": f"{HOST}:{port}",
            "GREENROOM_WORKER_CLASS": "greenroom",
            "GREENROOM_COMPANION": "no",
            "GREENROOM_OPS_BIND": "off",
            "GREENROOM_LIMIT_REQUESTS": "10000",
            "GREENROOM_UPSTREAM_IDLE_SECONDS": "1",  # what is still open later was lost, not kept
            "DATABASE_URL": database_url.replace("postgresql://", "postgresql+psycopg2://", 1),
            "REDIS_URL": redis_url,
            "UPSTREAM": upstream.address,
            **(settings or {}),
        }
        arbiter = subprocess.Popen(
            [sys.executable, "-m", "gunicorn"], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        bench = Bench(port, arbiter, log, database_url, upstream, bool(redis_url))
        try:
            wait_for(lambda: arbiter.poll() is not None or is_ready(bench), "the server is ready")
            if arbiter.poll() is not None:
                raise RuntimeError(f"the server ended:\n{log.read_text()}")
            yield bench
        finally:
            arbiter.terminate()
            arbiter.wait()
            upstream.stop()


def is_ready(bench: Bench) -> bool:
    try:
        return bench.get("/ready", timeout=5)[0] == 200
    except OSError:
        return False


def wait_for(condition: Any, what: str, seconds: float = READY_SECONDS) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.05)


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
