"""The parts of the site: PostgreSQL behind PgBouncer, Redis, hosts with the server, nginx in front; each a process."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from dotenv import dotenv_values

from devdb.cluster import Cluster

from .network import DATA, EDGE, Loopback, Namespaces

ROOT = Path(__file__).resolve().parents[2]
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
PROGRAMS = {"nginx": "nginx-light", "pgbouncer": "pgbouncer", "redis-server": "redis-server", "openssl": "openssl"}
SECONDS = 90.0
POOLED = 20  # connections of PgBouncer to PostgreSQL
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # folders of nginx


class DrillError(Exception):
    """The drill can't go on: a part did not start."""


def program(name: str) -> str:
    path = shutil.which(name, path=SBIN)
    if path is None:
        raise DrillError(f"no {name} here: apt-get install {PROGRAMS[name]}")
    return path


def wait_until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            raise DrillError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.05)


def is_listening(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Postgres(Cluster):
    """Reached over its host's own loopback interface, by PgBouncer and by migrations."""

    port: int = 0

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _listen_options(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "fsync=off"]


class Process:
    """A process of the site, with its log, started on one of the hosts."""

    def __init__(
        self,
        network: Namespaces | Loopback,
        host: str,
        command: list[str],
        log: Path,
        environ: Mapping[str, str] | None = None,
        folder: Path = ROOT,
        user: str | int | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output, network.inside(host):
            self.popen = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environ) if environ is not None else None,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=user,
                start_new_session=True,
            )

    def everybody(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.popen.pid)
            return [first, *first.children(recursive=True)]
        return []

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def signal_all(self, number: int) -> None:
        for one in self.everybody():
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, and its end."""
        if self.popen.poll() is None:
            self.signal_all(signal.SIGCONT)
            self.popen.terminate()
        try:
            self.popen.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """As when its host loses power: none of its processes says goodbye."""
        self.signal_all(signal.SIGKILL)
        self.popen.wait(30)


def start_pgbouncer(network: Namespaces | Loopback, folder: Path, postgres: Postgres) -> tuple[Process, str]:
    """PgBouncer in transaction mode, as deploy/README.md says, and the URL by which the hosts reach the database."""
    address = network.address(DATA)
    with network.inside(DATA):
        port = free_port(address)
    users = folder / "users.txt"
    users.write_text('"postgres" ""\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\nboards = host=127.0.0.1 port={postgres.port} dbname=boards user=postgres\n"
        f"[pgbouncer]\nlisten_addr = {address}\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"auth_file = {users}\npool_mode = transaction\ndefault_pool_size = {POOLED}\nmax_client_conn = 500\n"
        "ignore_startup_parameters = options,extra_float_digits\n"
    )
    for path in (folder, users, config):
        path.chmod(0o755 if path.is_dir() else 0o644)
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to be root
    process = Process(network, DATA, [program("pgbouncer"), str(config)], folder / "log", user=user, folder=Path("/"))
    wait_on(network, DATA, process, port, "PgBouncer")
    return process, f"postgresql://postgres@{address}:{port}/boards"


def start_redis(network: Namespaces | Loopback, folder: Path) -> tuple[Process, str]:
    address = network.address(DATA)
    with network.inside(DATA):
        port = free_port(address)
    command = [program("redis-server"), "--bind", address, "--port", str(port), "--save", "", "--dir", str(folder)]
    process = Process(network, DATA, [*command, "--protected-mode", "no"], folder / "log")
    wait_on(network, DATA, process, port, "Redis")
    return process, f"redis://{address}:{port}/0"


def wait_on(network: Namespaces | Loopback, host: str, process: Process, port: int, what: str) -> None:
    def is_up() -> bool:
        if process.popen.poll() is not None:
            raise DrillError(f"{what} ended with {process.popen.returncode}:\n{process.log.read_text()[-2000:]}")
        with network.inside(host):
            return is_listening(network.address(host), port)

    wait_until(is_up, f"{what} listens")


def environment(database_url: str, redis_url: str, **changes: str) -> dict[str, str]:
    """deploy/production.env with its placeholders filled in."""
    shipped = {name: value or "" for name, value in dotenv_values(ROOT / "deploy/production.env").items()}
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GREENROOM_", "WEB_", "WSGI_"))}
    mine = {
        "SECRET_KEY": "0123456789abcdef" * 4,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "CELERY_BROKER_URL": "",
        "MAIL_SERVER": "localhost",
        "MAIL_PASSWORD": "a-password-for-nobody",
        "PYTHONUNBUFFERED": "1",
    }
    return {**ours, **shipped, **mine, **changes}


class Host:
    """A host with the server on it. `release` is the folder of the code that it serves."""

    def __init__(
        self, network: Namespaces | Loopback, name: str, folder: Path, environ: Mapping[str, str], release: Path
    ) -> None:
        self.network = network
        self.name = name
        self.folder = folder
        self.release = release
        self.address = network.address(name)
        with network.inside(name):
            self.port = free_port(self.address)
        proxy = network.address(EDGE)
        self.environ = {
            **environ,
            "GREENROOM_BIND": f"{self.address}:{self.port}",
            "GREENROOM_OPS_BIND": "off",
            "GREENROOM_COMPANION": "no",
            "GREENROOM_FORWARDED_ALLOW_IPS": proxy,
            "TRUSTED_PROXIES": proxy,
            "INSTANCE_PATH": str(folder / "instance"),
            "GREENROOM_RECORDINGS_PATH": str(folder / "recordings"),
        }
        self.process = self._start()

    def _start(self) -> Process:
        environ = {**self.environ, "PYTHONPATH": str(self.release)}
        command = [sys.executable, "-m", "gunicorn"]
        return Process(self.network, self.name, command, self.folder / "log", environ, self.release)

    def workers(self) -> set[int]:
        return {one.pid for one in self.process.everybody()[1:]}

    def wait_ready(self) -> None:
        wait_on(self.network, self.name, self.process, self.port, f"the server on {self.name}")
        wait_until(self._is_ready, f"{self.name} is ready")

    def _is_ready(self) -> bool:
        if self.process.popen.poll() is not None:  # it listens before its workers have the application
            raise DrillError(f"the server on {self.name} ended:\n{self.process.log.read_text()[-2000:]}")
        return self._asks("/readyz") == 200

    def _asks(self, path: str) -> int:
        with self.network.inside(self.name), suppress(OSError):
            with socket.create_connection((self.address, self.port), 5) as sock:
                sock.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
                return int(sock.recv(100).split()[1])
        return 0

    def reload(self) -> None:
        before = self.workers()
        self.process.signal(signal.SIGHUP)
        wait_until(lambda: self.workers().isdisjoint(before), f"all old workers of {self.name} have left")

    def start_again(self) -> None:
        self.process = self._start()
        self.wait_ready()


def nginx_configuration(folder: Path, http_port: int, https_port: int, changes: Mapping[str, str]) -> str:
    """deploy/nginx.conf for nginx in a folder, on ports of the loopback interface, for localhost.

    `changes`: further texts, and what stands in their place. Raises DrillError for a text that is not there any more.
    """
    text = (ROOT / "deploy/nginx.conf").read_text()
    for old, new in {
        "user www-data;\n": "user root;\n" if os.geteuid() == 0 else "",
        "pid /run/nginx.pid;": f"pid {folder}/nginx.pid;",
        "http {\n": "http {\n" + "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in TEMPORARY),
        "/var/log/nginx/": f"{folder}/",
        "boards.example.org": "localhost",
        "/srv/greenroom/": f"{ROOT}/",
        **changes,
    }.items():
        if old not in text:
            raise DrillError(f"deploy/nginx.conf no longer has {old!r}")
        text = text.replace(old, new)
    text = re.sub(r"\n *listen \[::\].*;", "", text)
    text = re.sub(r"listen 80\b", f"listen 127.0.0.1:{http_port}", text)
    return re.sub(r"listen 443\b", f"listen 127.0.0.1:{https_port}", text)


class Nginx:
    """deploy/nginx.conf with other ports, paths and names."""

    def __init__(self, network: Namespaces | Loopback, folder: Path, hosts: list[Host]) -> None:
        self.network, self.folder = network, folder
        for name in ("first", "second"):
            self._make_certificate(name)
        self.use_certificate("first")
        self.trusted = folder / "trusted.pem"
        self.trusted.write_text("".join((folder / f"{name}.pem").read_text() for name in ("first", "second")))
        with network.inside(EDGE):
            self.http_port, self.https_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        lines = "\n".join(f"server {one.address}:{one.port} max_fails=1 fail_timeout=2s;" for one in hosts)
        self.config = folder / "nginx.conf"
        changes = {
            "/etc/nginx/tls/": f"{folder}/",
            "server unix:/run/greenroom/greenroom.sock;": lines,
            "#least_conn;": "least_conn;",
        }
        self.config.write_text(nginx_configuration(folder, self.http_port, self.https_port, changes))
        command = [program("nginx"), "-p", str(folder), "-c", str(self.config), "-e", str(folder / "error.log")]
        self.process = Process(network, EDGE, [*command, "-g", "daemon off;"], folder / "log")
        wait_until(self._is_up, "nginx listens")

    def _is_up(self) -> bool:
        if self.process.popen.poll() is not None:
            raise DrillError(f"nginx ended:\n{self.process.log.read_text()[-2000:]}")
        with self.network.inside(EDGE):
            return is_listening("127.0.0.1", self.https_port)

    def _make_certificate(self, name: str) -> None:
        options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        files = "-keyout", str(self.folder / f"{name}-key.pem"), "-out", str(self.folder / f"{name}.pem")
        command = [program("openssl"), *options.split(), "-addext", "subjectAltName=DNS:localhost", *files]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def use_certificate(self, name: str) -> None:
        """Put it in the place of the one that was there, as certbot does."""
        for source, target in ((f"{name}-key.pem", "privkey.pem"), (f"{name}.pem", "fullchain.pem")):
            link = self.folder / f"{target}.new"
            link.symlink_to(self.folder / source)
            link.replace(self.folder / target)

    def served_certificate(self) -> str:
        """The certificate that a new client is shown. Runs in the edge's network."""
        return ssl.get_server_certificate(("localhost", self.https_port), timeout=30)

    def reload(self) -> None:
        self.process.signal(signal.SIGHUP)

    def uses(self, host: Host) -> Callable[[], bool]:
        """Whether the log names the host in a line that was written after now."""
        log = self.folder / "access.log"
        start = log.stat().st_size
        return lambda: f" upstream {host.address}:{host.port} " in log.read_text()[start:]
