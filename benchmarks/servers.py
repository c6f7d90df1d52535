"""Processes: the server under test, the upstream and the database. Started, asked whether they are ready, stopped."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler

import psutil

from greenroom.settings import Settings
from greenroom.settings import rows as settings_rows

from .machine import ROOT, running_on

HOST = "127.0.0.1"
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
LOG_TAIL_LINES = 15
# Prefixes of variables that could change a server behind our back.
FOREIGN_PREFIXES = ("GREENROOM_", "GUNICORN_", "WEB_CONCURRENCY", "WSGI_APP", "FLASK_", "PYTHON")


class ServerFailed(Exception):
    """A process did not start, ended by itself, or gave wrong answers before anything was measured; the message says
    which, with the end of its log.
    """


@dataclass(frozen=True)
class ServerUnderTest:
    """A server to compare: a name for the table, a command in which {port} stands for the port, its environment.

    `app` names the application as the server's command or environment does; it is kept here for the report.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    app: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def gunicorn(worker_class: str, app: str, environment: Mapping[str, str] | None = None) -> ServerUnderTest:
    """One gunicorn worker of a kind, through the project's gunicorn.conf.py, every other setting at its default.

    Each setting is named with an empty value, which means its default: neither this shell nor .env can change one.
    """
    defaults = {row.name: "" for row in settings_rows()}
    chosen = {
        "WSGI_APP": app,
        "WEB_CONCURRENCY": "1",
        "GREENROOM_BIND": f"{HOST}:{{port}}",
        "GREENROOM_WORKER_CLASS": worker_class,
        "GREENROOM_COMPANION": "no",
    }
    return ServerUnderTest(
        worker_class, (sys.executable, "-m", "gunicorn"), {**defaults, **chosen, **(environment or {})}, app
    )


def effective_settings(server: ServerUnderTest) -> dict[str, Any]:
    """The settings that a gunicorn of ours ran with, defaults included, for the report."""
    environ = {name: value.replace("{port}", "0") for name, value in server.environment.items()}
    return asdict(Settings.read(environ))


@dataclass(frozen=True)
class RunningServer:
    """A server that answers. Ask `cpu_seconds` twice to learn what lay between."""

    server: ServerUnderTest
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str, timeout_seconds: float = 10.0, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body. Raises OSError while nobody answers."""
        scheme = "https" if self.server.environment.get("GREENROOM_TLS_CERTIFICATE") else "http"
        request = urllib.request.Request(f"{scheme}://{HOST}:{self.port}{path}", data=body or None)
        trusting = ssl._create_unverified_context()  # nothing secret is asked, and of our own server
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), HTTPSHandler(context=trusting))
        try:
            with opener.open(request, timeout=timeout_seconds) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read()

    def workers(self) -> list[psutil.Process]:
        """The processes that serve: the children, or the process itself where there are none.

        Raises ServerFailed when there is no server any more.
        """
        if self.process.poll() is not None:
            raise ServerFailed(f"{self.server.name} ended while it was measured:\n{self.log_tail()}")
        main = psutil.Process(self.process.pid)
        return main.children(recursive=True) or [main]

    def cpu_seconds(self) -> float:
        times = [worker.cpu_times() for worker in self.workers()]
        return sum(one.user + one.system for one in times)

    def memory(self) -> tuple[int, str]:
        """Bytes of the workers, and how they were counted: `PSS` where the system tells, else `RSS`."""
        infos = [worker.memory_full_info() for worker in self.workers()]
        if all(hasattr(info, "pss") for info in infos):
            return sum(info.pss for info in infos), "PSS"
        return sum(info.rss for info in infos), "RSS"

    def log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


@contextlib.contextmanager
def serving(
    server: ServerUnderTest,
    *,
    log: Path,
    cores: frozenset[int],
    environment: Mapping[str, str],
    ready_path: str,
    ready_seconds: float = READY_SECONDS,
) -> Iterator[RunningServer]:
    """Run `server` on a free port, on `cores`, with `environment` on top, until the block is left.

    Raises ServerFailed when it ends or does not answer `ready_path` with 200 in time.
    """
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in server.command]
    own = {name: value.replace("{port}", str(port)) for name, value in server.environment.items()}
    with log.open("wb") as output, running_on(cores):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**clean_environment(), **environment, **own},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = RunningServer(server, process, port, log)
    try:
        wait_ready(running, ready_path, ready_seconds)
        yield running
    finally:
        stop(process)


def wait_ready(running: RunningServer, path: str, timeout_seconds: float) -> None:
    give_up_at = time.monotonic() + timeout_seconds
    seen = "no answer"
    while time.monotonic() < give_up_at:
        if running.process.poll() is not None:
            raise ServerFailed(f"{running.server.name} ended with {running.process.returncode}:\n{running.log_tail()}")
        try:
            status, _ = running.get(path, timeout_seconds=2)
        except OSError as exc:
            seen = str(exc)
        else:
            if status == 200:
                return
            seen = f"status {status}"
        time.sleep(0.05)
    raise ServerFailed(
        f"{running.server.name} was not ready in {timeout_seconds:g} s ({seen} from {path}):\n{running.log_tail()}"
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM; what is still there after STOP_SECONDS is killed, its children too."""
    if process.poll() is None:  # so its number is still its own
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in psutil.wait_procs(children, timeout=2)[1]:
            child.kill()


@contextlib.contextmanager
def upstream_running() -> Iterator[str]:
    """The upstream's URL. It runs where this process runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.upstream"],
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().decode().strip()
        if not url:
            raise ServerFailed("the upstream did not start; its error is above")
        yield url
    finally:
        process.stdin.close()  # it ends with its standard input
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def check_answer(running: RunningServer, path: str, expected: Mapping[str, Any]) -> bytes:
    """The body that `path` answers, once it says what it should. Raises ServerFailed otherwise."""
    status, body = running.get(path, timeout_seconds=30)
    if status != 200 or json.loads(body) != expected:
        raise ServerFailed(
            f"{running.server.name} answers {path} with {status} {body[:200]!r}, not {expected}:\n{running.log_tail()}"
        )
    return body


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """This process's environment without what would change a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIXES)}
