"""Real server processes on free ports of the loopback interface."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.support import self_signed

ROOT = Path(__file__).resolve().parents[2]
# Must not expire when all is well; CI machines are slow and shared.
LONG_WAIT_SECONDS = 90.0
PYTHON_MODULE = (sys.executable, "-m")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("live")


def is_dead(process: psutil.Process) -> bool:
    """Gone, or waiting to be reaped."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], object], what: str, timeout_seconds: float = LONG_WAIT_SECONDS) -> None:
    """Wait until `condition()` is true; fail the test with `what` when it does not become so."""
    give_up_at = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > give_up_at:
            pytest.fail(f"waited {timeout_seconds:g} s in vain: {what}")
        time.sleep(0.02)


# Below the ports that the kernel gives to outgoing connections, and others for each of pytest's processes: a port that
# was free when it was chosen still is when the server gets there. They begin anywhere, for two runs on one machine.
FIRST_PORT = 11_000
PORTS_PER_PROCESS = 2_000
PROCESS_NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
numbers = itertools.count(random.randrange(PORTS_PER_PROCESS))


def free_port() -> int:
    first = FIRST_PORT + PROCESS_NUMBER * PORTS_PER_PROCESS
    for number in itertools.islice(numbers, PORTS_PER_PROCESS):
        port = first + number % PORTS_PER_PROCESS
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no port is free from {first} to {first + PORTS_PER_PROCESS}")


class Server:
    """A server process under test: started on a free port, asked for readiness, its log kept for a failing test."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], log: Path, port: int, cwd: Path = ROOT
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self.text_begins_at = 0
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=cwd, env={**clean_environment(), **environ}, stdout=output, stderr=subprocess.STDOUT
            )

    def wait_ready(self, path: str = "/readyz") -> "Server":
        def is_ready() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the server ended with {self.process.returncode}:\n{self.text()}")
            try:
                return requests.get(self.url + path, timeout=5).status_code == 200
            except requests.RequestException:
                return False

        wait_until(is_ready, f"the server is ready. Its log:\n{self.text()}")
        return self

    def text(self) -> str:
        """Its log; a server that is shared by tests begins it anew for each of them."""
        return self.log.read_bytes()[self.text_begins_at :].decode(errors="replace")

    def begin_text_anew(self) -> None:
        self.text_begins_at = self.log.stat().st_size

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait_gone()

    def wait_gone(self) -> int:
        try:
            return self.process.wait(LONG_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the server did not stop:\n{self.text()}")

    def workers(self) -> list[psutil.Process]:
        """The worker processes: the arbiter's children that listen where it listens."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it left just now; its arbiter has not noticed yet
                if "gunicorn" in " ".join(child.cmdline()):
                    found.append(child)
        return found


def clean_environment() -> dict[str, str]:
    """This process's environment, which tests/conftest.py has emptied of settings, with warnings as errors."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


class Servers:
    """The servers of one test, or of one file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Server] = []

    def start(self, command: Sequence[str], environ: Mapping[str, str], port: int, cwd: Path = ROOT) -> Server:
        server = Server(command, environ, self.folder / f"server-{len(self.started)}.log", port, cwd=cwd)
        self.started.append(server)
        return server

    def start_gunicorn(
        self, environ: Mapping[str, str] | None = None, command: Sequence[str] = (*PYTHON_MODULE, "gunicorn")
    ) -> Server:
        """Run gunicorn as the README says, or another command, which may contain {port}."""
        port = free_port()
        settings = {
            "GREENROOM_BIND": f"127.0.0.1:{port}",
            "GREENROOM_OPS_BIND": "off",  # it has one port for the whole machine, and tests of its own
            "INSTANCE_PATH": str(self.folder / "instance"),
            **(environ or {}),
        }
        return self.start([part.format(port=port) for part in command], settings, port)

    def stop(self) -> None:
        for server in self.started:
            if server.process.poll() is None:
                server.stop()
            # Shown by pytest only when the test failed.
            print(f"--- {server.log.name}\n{server.text()}")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Every server is stopped at the end of the test."""
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


@pytest.fixture
def start(servers: Servers) -> Callable[..., Server]:
    """`start(environ)`, `start(environ, command=[...])`: see start_gunicorn."""
    return servers.start_gunicorn


class SharedServers:
    """Servers that the tests of a file share: one for each set of settings and command."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.running: dict[object, Server] = {}

    def start(self, environ: Mapping[str, str], *arguments: Sequence[str]) -> Server:
        """The server that these arguments of start_gunicorn have started already, or start it."""
        key = (tuple(sorted(environ.items())), *map(tuple, arguments))
        if key not in self.running:
            self.running[key] = self.servers.start_gunicorn(environ, *arguments)
        self.running[key].begin_text_anew()
        return self.running[key]


@pytest.fixture(scope="module")
def shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServers]:
    servers = Servers(tmp_path_factory.mktemp("shared"))
    yield SharedServers(servers)
    servers.stop()


@pytest.fixture
def share(shared_servers: SharedServers) -> Callable[..., Server]:
    """As `start`, for tests that do the server no harm: those of the file that ask for the same get the same server."""
    return shared_servers.start


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate for localhost, as settings."""
    pem, key = self_signed(tmp_path_factory.mktemp("tls"), "rsa:2048")
    return {"GREENROOM_TLS_CERTIFICATE": str(pem), "GREENROOM_TLS_KEY": str(key)}


@pytest.fixture(scope="session")
def database_url(postgres_url: str) -> str:
    """A PostgreSQL of your own: running, migrated with the command that deploy/README.md gives."""
    subprocess.run(
        [*PYTHON_MODULE, "flask", "--app", "app", "db", "upgrade"],
        cwd=ROOT,
        env={**clean_environment(), "DATABASE_URL": postgres_url},
        check=True,
        capture_output=True,
        timeout=LONG_WAIT_SECONDS,
    )
    return postgres_url


@pytest.fixture(scope="session")
def board_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server as a newcomer starts it, but for the port and the instance folder. Shared: do it no harm."""
    folder = tmp_path_factory.mktemp("newcomer")
    port = free_port()
    # Two workers on any machine: what is true with one of them may be luck.
    environ = {
        "GREENROOM_BIND": f"127.0.0.1:{port}",
        "GREENROOM_OPS_BIND": "off",
        "INSTANCE_PATH": str(folder / "instance"),
        "WEB_CONCURRENCY": "2",
    }
    server = Server([*PYTHON_MODULE, "gunicorn"], environ, folder / "server.log", port).wait_ready()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def flask_command(board_server: Server) -> Callable[..., str]:
    """Runs `flask ...` beside the server, on the same database, and returns what it printed."""
    instance_path = board_server.log.parent / "instance"

    def run(*arguments: str, stdin: str = "") -> str:
        result = subprocess.run(
            [*PYTHON_MODULE, "flask", "--app", "app", *arguments],
            cwd=ROOT,
            env={**clean_environment(), "INSTANCE_PATH": str(instance_path)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LONG_WAIT_SECONDS,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
