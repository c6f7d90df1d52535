"""Staging for test_night: servers that misbehave, and a server of ours whose ops page is read as an operator would."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from devdb.cluster import Cluster

from .conftest import PYTHON_MODULE, Server, free_port
from .staging import Ops

MINUTE = 60.0
GROUP_BYTES = 400_000_000
HEAD = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n"


@dataclass(frozen=True)
class Postgres(Cluster):
    """One of this test's own, on a port of its own, to stop and to break."""

    port: int = 0
    slots: int = 100

    def url(self, database: str) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{database}"

    def _listen_options(self) -> list[str]:
        options = ("max_connections", self.slots), ("superuser_reserved_connections", 1), ("fsync", "off")
        settings = [word for name, value in options for word in ("-c", f"{name}={value}")]
        return ["-h", "127.0.0.1", "-p", str(self.port), "-k", "", *settings]

    def send(self, number: int) -> None:
        """A signal to all of its processes."""
        process = self.postmaster()
        assert process is not None
        for one in [process, *process.children()]:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)


@contextmanager
def postgres(folder: Path, slots: int = 100) -> Iterator[Postgres]:
    server = Postgres(folder / "postgres", port=free_port(), slots=slots)
    server.create()
    server.start(60)
    try:
        yield server
    finally:
        with suppress(AssertionError):
            server.send(signal.SIGCONT)
        server.stop()


class Peer:
    """A server that answers badly: `mode` says how. Raw sockets, since what it does is no HTTP library's idea."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.count = 0
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=300)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            if self.mode in ("silent", "full"):  # "full": it does not even read
                while self.mode == "silent" and client.recv(65536):
                    pass
                threading.Event().wait(300)
            while asked := client.recv(65536):
                self.count += 1
                self._answer(client, asked)

    def _answer(self, client: socket.socket, asked: bytes) -> None:
        if self.mode == "half":
            client.sendall(HEAD % (b"500 Oh" if self.count % 2 else b"200 OK", 2) + b"{}")
        elif self.mode == "429":
            client.sendall(HEAD % (b"429 Too Many Requests", 2) + b"{}")
        elif self.mode == "garbage":
            client.sendall(b"\x15\x03\x01nonsense\r\n\r\n")
            client.close()
        elif self.mode == "cut":
            client.sendall(HEAD % (b"200 OK", 100) + b"xx")
            client.close()
        elif self.mode == "drip":
            client.sendall(HEAD % (b"200 OK", 200))
            for _ in range(200):
                client.sendall(b"x")
                time.sleep(0.1)

    def close(self) -> None:
        self.socket.close()


@contextmanager
def peer(mode: str) -> Iterator[Peer]:
    one = Peer(mode)
    try:
        yield one
    finally:
        one.close()


class Night:
    """A server in trouble, and what its page says."""

    def __init__(self, server: Server, ops: Ops) -> None:
        self.server = server
        self.ops = ops
        self.url = server.url
        self.said: dict[str, None] = {}
        self.first: dict[str, str] = {}  # causes that have stood first, with their level

    def findings(self) -> list[dict[str, Any]]:
        with suppress(requests.RequestException, KeyError):
            verdict = self.ops.view()["verdict"]
            found = [verdict, *verdict["others"]]
            self.first[verdict["cause"]] = verdict["level"]
            for one in found:
                self.said[f"{one['level']} {one['cause']}: {one['sentence']} | {one['do']}"] = None
            return found
        return []

    def is_named(self, *patterns: str, first: bool = True) -> str:
        """The verdict that matches all of these, within a minute; the first one on the page, or one of those below."""
        give_up_at = time.monotonic() + MINUTE
        while time.monotonic() < give_up_at:
            found = self.findings()
            for one in found[:1] if first else found:
                text = f"{one['sentence']} | {one['do']}"
                if all(re.search(pattern, text) for pattern in patterns):
                    return text
            time.sleep(0.5)
        raise AssertionError(f"in a minute nothing matched {patterns}; the page said: " + "\n".join(self.said))

    def stood_first(self) -> set[str]:
        """The causes of trouble that have stood first, but for what the machine's other programs do to it."""
        return {cause for cause, level in self.first.items() if level != "ok"} - {"robbed"}

    def stays_well(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.findings()
            time.sleep(0.5)
        assert self.stood_first() == set(), "\n".join(self.said)

    def print(self) -> None:
        """Shown by pytest when the test failed, or with -rP."""
        print("\n".join(self.said))
        print(self.server.text()[-3000:] if self.server.log.exists() else "")


@contextmanager
def night(
    folder: Path,
    environ: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    workers: int = 2,
    app: str = "tests.live.apps.night:app",
) -> Iterator[Night]:
    port, ops_port = free_port(), free_port()
    settings = {
        "WSGI_APP": app,
        "WEB_CONCURRENCY": str(workers),
        "GREENROOM_WORKER_CLASS": "greenroom",
        "GREENROOM_REQUEST_BUDGET_MILLISECONDS": "0",
        "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "1",
        "GREENROOM_BIND": f"127.0.0.1:{port}",
        "GREENROOM_OPS_BIND": f"127.0.0.1:{ops_port}",
        "GREENROOM_RECORDINGS_PATH": str(folder / "recordings"),
        "PYTHONDONTWRITEBYTECODE": "1",
        **(environ or {}),
    }
    server = Server([*prefix, *PYTHON_MODULE, "gunicorn"], settings, folder / "server.log", port)
    one = Night(server, Ops(ops_port))
    try:
        server.wait_ready("/ok")
        one.ops.wait_for(lambda view: view["total"]["workers_serving"] == workers, "all workers serve")
        yield one
    finally:
        one.print()
        end(server)


def end(server: Server) -> None:
    """Some of its workers are in a state that a graceful stop would wait for."""
    with suppress(psutil.NoSuchProcess):
        arbiter = psutil.Process(server.process.pid)
        children = arbiter.children(recursive=True)
        server.process.kill()
        server.process.wait(30)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, 30)


def limited_files(count: int) -> tuple[str, ...]:
    return ("sh", "-c", f'ulimit -n {count}; exec "$0" "$@"')


def memory_group() -> Path | None:
    """A control group of this test's own, which bounds the memory of what joins it; None where none can be made.

    Of cgroup v2 or v1. Whoever makes it removes it, when the processes in it have ended.
    """
    root = Path("/sys/fs/cgroup")
    for parent, limit in ((root, "memory.max"), (root / "memory", "memory.limit_in_bytes")):
        group = parent / f"greenroom-test-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(GROUP_BYTES))
                return group
            group.rmdir()
    return None


def can_unshare() -> bool:
    """Whether a mount namespace of one's own can be had here."""
    return os.name == "posix" and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
