"""A server under test with the services that its application needs; a reload and a stop under load."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from .model import Application

APPS = Path(__file__).resolve().parent / "apps"
START_SECONDS = 120.0
STOP_SECONDS = 40.0
GTHREAD = ("-m", "gunicorn", "-k", "gthread", "--threads", "8")
GREENROOM = ("-m", "greenroom", "serve")
PATCHED = ("-m", "greenroom", "run", "--")


class Failed(Exception):
    """A server or a service did not do what it should; the message says what."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    def __init__(self, python: Path, way: tuple[str, ...], application: Application, environ: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.folder = Path(tempfile.mkdtemp(prefix="adoption-"))
        shutil.copy(APPS / f"{application.module}.py", self.folder)
        self.log = self.folder / "server.log"
        own = {
            "WEB_CONCURRENCY": "2",
            "GREENROOM_OPS_BIND": "off",
            "GUNICORN_CMD_ARGS": "--timeout 120",  # an import on a busy machine
            "PYTHONHASHSEED": "0",  # the order of a set shows in an answer of Flask-RESTX
            "ADOPTION_DATABASE": str(self.folder / "adoption.sqlite"),
            **application.environ,
            **environ,
        }
        if "metrics folder" in application.services:
            own["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder)
        command = [str(python), *way]
        if application.launcher:
            own["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
            launched = [*application.launcher, str(python.parent / "gunicorn")]
            command = [*map(str, (python, *PATCHED)), *launched] if way is GREENROOM else launched
            command += ["-k", "greenroom.Worker"] if way is GREENROOM else way[2:]
        command += ["--bind", f"127.0.0.1:{port}", f"{application.module}:app"]
        self.workers = int(own["WEB_CONCURRENCY"])
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "WSGI_APP")}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env={**inherited, **own}, stdout=output, stderr=subprocess.STDOUT
            )

    def wait_ready(self, path: str) -> "Server":
        give_up_at = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up_at:
            if self.process.poll() is not None:
                raise Failed(f"it ended with {self.process.returncode}: {self.text()[-2000:]}")
            with contextlib.suppress(requests.RequestException):
                requests.get(self.url + path, timeout=10)
                return self
            time.sleep(0.05)
        raise Failed(f"it did not become ready: {self.text()[-2000:]}")

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def reload_and_stop(self, path: str) -> list[str]:
        """Reload, then stop, with requests on the way; return the errors of the requests, the reload and the stop."""
        problems: list[str] = []
        is_over = threading.Event()

        def ask() -> None:
            while not is_over.is_set():
                try:
                    answer = requests.get(self.url + path, timeout=60)
                    if answer.status_code >= 500:
                        problems.append(f"a request got {answer.status_code} during a reload")
                except requests.RequestException as exc:
                    problems.append(f"a request was lost during a reload: {exc}")

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        booted = self.workers
        give_up_at = time.monotonic() + START_SECONDS
        while self.text().count("Booting worker") < booted and time.monotonic() < give_up_at:
            time.sleep(0.05)
        self.process.send_signal(signal.SIGHUP)
        while self.text().count("Worker exiting") < booted and time.monotonic() < give_up_at:
            time.sleep(0.05)
        is_over.set()
        for asker in askers:
            asker.join()
        if self.text().count("Worker exiting") < booted:
            problems.append("the reload did not come to its end")
        if self.text().count("Booting worker") != 2 * booted:
            problems.append("workers were lost")
        return [*problems, *self.stop()]

    def stop(self) -> list[str]:
        if self.process.poll() is not None:
            return []
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return ["it did not stop"]
        took = time.monotonic() - began
        problems = [f"it ended with {code}"] if code else []
        return [*problems, f"stopping took {took:.1f} s"] if took > STOP_SECONDS - 15 else problems


@contextlib.contextmanager
def services(python: Path, application: Application) -> Iterator[dict[str, str]]:
    """The environment of an application: Redis, a Celery worker, S3, MariaDB; fresh ones."""
    with contextlib.ExitStack() as stack:
        environ: dict[str, str] = {}
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="adoption-", ignore_cleanup_errors=True))
        if "redis" in application.services:
            environ["ADOPTION_REDIS"] = redis(stack, folder)
        if "moto" in application.services:
            port = free_port()
            run(stack, [str(python.parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], folder, port)
            environ["ADOPTION_S3"] = f"http://127.0.0.1:{port}"
        if "mysql" in application.services:
            environ["ADOPTION_MYSQL"] = mysql(stack, folder)
        if "mongo" in application.services:
            port = free_port()
            run(stack, [str(python), str(APPS.parent / "mongo_server.py"), str(port)], folder, port)
            environ["ADOPTION_MONGO"] = f"mongodb://127.0.0.1:{port}/"
        if "postgres" in application.services:
            from devdb.server import EmbeddedPostgres

            postgres = EmbeddedPostgres(Path(folder) / "postgres")
            stack.callback(postgres.stop)
            environ["ADOPTION_POSTGRES"] = postgres.start()
        if "celery" in application.services:
            options = ["worker", "-l", "info", "--pool", "threads", "-c", "4"]
            command = [str(python), "-m", "celery", "-A", f"{application.module}.celery", *options]
            run(stack, command, str(APPS), None, environ, says=b" ready.")
        yield environ


def redis(stack: contextlib.ExitStack, folder: str) -> str:
    """The URL of a Redis with nothing in it."""
    port = free_port()
    run(stack, ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"], folder, port)
    return f"redis://127.0.0.1:{port}/0"


def mysql(stack: contextlib.ExitStack, folder: str) -> str:
    """The URL of a MariaDB with nothing in it."""
    if shutil.which("mariadb-install-db") is None:
        raise Failed("MariaDB is not installed here")
    port = free_port()
    data = f"{folder}/mysql"
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
    subprocess.run([*install, "--user=root"], check=True, capture_output=True, timeout=START_SECONDS)
    options = [f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/mysql.sock"]
    run(stack, ["mariadbd", "--no-defaults", "--user=root", *options], folder, port)
    return f"mysql://root@127.0.0.1:{port}"


def run(
    stack: contextlib.ExitStack,
    command: list[str],
    folder: str,
    port: int | None,
    environ: dict[str, str] | None = None,
    *,
    says: bytes = b"",
) -> None:
    """Start a program, wait until it listens on `port` or has said something, and end it with the stack."""
    if shutil.which(command[0]) is None:
        raise Failed(f"{command[0]} is not installed here")
    output = stack.enter_context(tempfile.TemporaryFile())
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **(environ or {})}, stdout=output, stderr=subprocess.STDOUT
    )

    def end() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    give_up_at = time.monotonic() + START_SECONDS
    while True:
        said = os.pread(output.fileno(), 1 << 20, 0)
        if port is None and says in said:
            return
        if port is not None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
        if time.monotonic() > give_up_at or process.poll() is not None:
            raise Failed(f"{command[0]} did not start: {said[-1000:].decode(errors='replace')}")
        time.sleep(0.05)
