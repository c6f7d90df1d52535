"""Staging troubles for the ops page: a server with the application `trouble`, a slow upstream, clients that come.

Used by the tests and by `python -m tests.live.screenshots`.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import requests

from app.database import psycopg2_url

from .conftest import PYTHON_MODULE, Server, free_port

# The operator is told the cause within a minute.
MINUTE = 60.0
TROUBLE = {
    "WSGI_APP": "tests.live.apps.trouble:app",
    "GREENROOM_WORKER_CLASS": "greenroom",
    "GREENROOM_REQUEST_BUDGET_MILLISECONDS": "0",
    "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "1",
    "WEB_CONCURRENCY": "2",
}


class _Slow(BaseHTTPRequestHandler):
    """Answers /<ms> after that time, and /traces with the traces that it was asked under."""

    protocol_version = "HTTP/1.1"
    server: "_SlowServer"

    def do_GET(self) -> None:
        body = b"{}"
        if self.path == "/traces":
            body = json.dumps(self.server.traces).encode()
        else:
            self.server.traces += self.headers.get_all("traceparent", [])
            time.sleep(int(self.path.strip("/")) / 1000)
        with suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _SlowServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.traces: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are cut off are what these tests are about."""


@contextmanager
def slow_upstream() -> Iterator[str]:
    """The URL of a server that takes as long as it is asked to."""
    server = _SlowServer(("127.0.0.1", 0), _Slow)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


class Clients:
    """So many clients that each ask for `path` again and again, until `stop`."""

    def __init__(self, url: str, path: str, count: int, pause_seconds: float = 0.0) -> None:
        self.url = url + path
        self.pause_seconds = pause_seconds
        self.answers: list[int] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with requests.Session() as session:
            while not self._stopping.is_set():
                try:
                    self.answers.append(session.get(self.url, timeout=60).status_code)
                except requests.RequestException:
                    self.answers.append(0)
                    self._stopping.wait(0.05)
                self._stopping.wait(self.pause_seconds)

    def stop(self) -> None:
        self._stopping.set()

    def join(self, timeout_seconds: float = 10.0) -> None:
        for thread in self._threads:
            thread.join(timeout_seconds)


@contextmanager
def clients(url: str, *asked: tuple[str, int] | tuple[str, int, float]) -> Iterator[list[Clients]]:
    """`clients(url, ("/path", how many, pause))`; they stop at the end."""
    running = [Clients(url, *each) for each in asked]
    try:
        yield running
    finally:
        for each in running:
            each.stop()


class Ops:
    """The ops page, for a test."""

    def __init__(self, port: int, token: str = "") -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, headers=self.headers, timeout=30, **options)

    def view(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/view").json()
        return found

    def metrics(self) -> dict[str, float]:
        """Each sample, by its name with its labels."""
        lines = [line for line in self.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def wait_for(
        self, condition: Callable[[dict[str, Any]], object], what: str, timeout_seconds: float = 60.0
    ) -> dict[str, Any]:
        """The first view that fulfils `condition`."""
        give_up_at = time.monotonic() + timeout_seconds
        said = ""
        while time.monotonic() < give_up_at:
            with suppress(requests.RequestException, KeyError):
                view = self.view()
                said = view["verdict"]["sentence"]
                if condition(view):
                    return view
            time.sleep(0.2)
        raise AssertionError(f"waited {timeout_seconds:g} s in vain: {what}; the verdict was: {said}")


@contextmanager
def server_with_ops(folder: Path, ready_path: str, **environ: str) -> Iterator[tuple[Server, Ops]]:
    """A server of two workers with its ops page, once both serve."""
    port, ops_port = free_port(), free_port()
    settings = {
        **TROUBLE,
        "GREENROOM_BIND": f"127.0.0.1:{port}",
        "GREENROOM_OPS_BIND": f"127.0.0.1:{ops_port}",
        "GREENROOM_RECORDINGS_PATH": str(folder / "recordings"),
        **environ,
    }
    server = Server([*PYTHON_MODULE, "gunicorn"], settings, folder / "server.log", port)
    try:
        server.wait_ready(ready_path)
        ops = Ops(ops_port)
        ops.wait_for(lambda view: view["total"]["workers_serving"] == 2, "both workers serve")
        yield server, ops
    finally:
        with suppress(psutil.NoSuchProcess):
            for worker in server.workers():
                worker.kill()  # some of them are in a state that a graceful stop would wait for
        server.stop()
        print(server.text())


class Stage:
    """A server with the application `trouble`, its ops page, and an upstream that takes as long as it is asked to."""

    def __init__(self, server: Server, ops: Ops, upstream: str) -> None:
        self.server = server
        self.ops = ops
        self.upstream = upstream.removeprefix("http://")

    def verdict(self, cause: str) -> dict[str, Any]:
        """The verdict as soon as its first sentence is of this cause."""
        view = self.ops.wait_for(lambda view: view["verdict"].get("cause") == cause, f"a verdict of {cause}", MINUTE)
        found: dict[str, Any] = view["verdict"]
        return found


@contextmanager
def staged(folder: Path, postgres_url: str) -> Iterator[Stage]:
    database_url = psycopg2_url(postgres_url).render_as_string(hide_password=False)
    with (
        slow_upstream() as upstream,
        server_with_ops(folder, "/", UPSTREAM_URL=upstream, TROUBLE_DATABASE_URL=database_url) as (server, ops),
    ):
        yield Stage(server, ops, upstream)
