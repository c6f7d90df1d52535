"""The servers of one set: the shop over HTTP with its page and hooks, the same over TLS, and an upstream."""

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from tests.live.conftest import Server, free_port, wait_until
from tests.support import self_signed

from .shop import LONG_WAIT_SECONDS, MEETING

SHOP = Path(__file__).with_name("shop.py")
WORKERS = 2
HOOKS = """
import os

NAMES = dict(on_starting=1, on_reload=1, when_ready=1, pre_fork=2, post_fork=2, post_worker_init=1, worker_exit=2,
             pre_request=2, post_request=4, child_exit=2, nworkers_changed=3, on_exit=1)

def recorder(name, arity):
    def record(*arguments):
        with open("hooks.txt", "a") as log:
            log.write(f"{name}\\n")
        if name == "post_fork":
            os.environ["HOOKS"] = "ran"
    return eval(f"lambda {', '.join('abcd'[:arity])}: record()", {"record": record})

globals().update({name: recorder(name, arity) for name, arity in NAMES.items()})
"""


class Upstream(ThreadingHTTPServer):
    """Answers with the port of the client's connection: `/held` when it is let, `/never` never."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: list[str] = []
        self.let = threading.Event()
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is what some tests want."""


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/held":
            self.server.let.wait(LONG_WAIT_SECONDS)
        if self.path == "/never":
            self.server.ended.wait()
        body = json.dumps(self.client_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """The server's log is what counts."""


class Shop(Server):
    """The shop under `greenroom serve`, with a page and a gunicorn.conf.py of its own."""

    folder: Path
    page: str
    upstream: Upstream

    def asked(self, path: str, count: int = 2 * MEETING) -> list[Any]:
        """The answers to so many requests at once."""
        with ThreadPoolExecutor(count) as threads:
            answers = threads.map(lambda _: self.get(path), range(count))
            return [answer.json() for answer in answers]

    def get(self, path: str = "/", **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=LONG_WAIT_SECONDS)

    def hooks(self) -> list[str]:
        return (self.folder / "hooks.txt").read_text().split()

    def view(self) -> dict[str, Any]:
        """What the page shows."""
        shown: dict[str, Any] = requests.get(f"{self.page}/view", timeout=LONG_WAIT_SECONDS).json()
        return shown


@contextmanager
def shop_over_http(python: Path, folder: Path, postgres_url: str) -> Iterator[Shop]:
    folder.mkdir()
    shutil.copy(SHOP, folder)
    (folder / "gunicorn.conf.py").write_text(HOOKS)
    port, page = free_port(), free_port()
    upstream = Upstream()
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    command = (str(python.parent / "greenroom"), "serve", "shop:app", "--bind", f"127.0.0.1:{port}")
    environ = {
        "GREENROOM_OPS_BIND": f"127.0.0.1:{page}",
        "PWD": str(folder),
        "SHOP_DATABASE": postgres_url,
        "SHOP_UPSTREAM": upstream.url,
        "WEB_CONCURRENCY": "1",
    }
    shop = Shop(command, environ, folder / "server.log", port, cwd=folder)
    shop.folder, shop.page, shop.upstream = folder, f"http://127.0.0.1:{page}", upstream
    try:
        shop.wait_ready("/")
        yield shop
    finally:
        upstream.ended.set()
        upstream.let.set()
        shop.stop()
        upstream.shutdown()
        upstream.server_close()
        print(shop.text())


class ShopOverTls(Server):
    """The shop under `gunicorn -k greenroom.Worker`; a worker is replaced after so many requests."""

    certificate: str

    def get(self, session: requests.Session, path: str = "/") -> requests.Response:
        return session.get(f"https://127.0.0.1:{self.port}{path}", verify=self.certificate, timeout=LONG_WAIT_SECONDS)


@contextmanager
def shop_over_tls(
    python: Path, folder: Path, postgres_url: str, *options: str, max_requests: int
) -> Iterator[ShopOverTls]:
    folder.mkdir()
    shutil.copy(SHOP, folder)
    self_signed(folder, "rsa:2048")
    port = free_port()
    command = (
        str(python.parent / "gunicorn"), "-k", "greenroom.Worker", "--bind", f"127.0.0.1:{port}",
        "--certfile", "cert.pem", "--keyfile", "key.pem", "--max-requests", str(max_requests), *options, "shop:app",
    )  # fmt: skip
    environ = {
        "GREENROOM_OPS_BIND": "off",
        "PWD": str(folder),
        "SHOP_DATABASE": postgres_url,
        "SHOP_UPSTREAM": "http://127.0.0.1:9",
    }
    server = ShopOverTls(command, environ, folder / "server.log", port, cwd=folder)
    server.certificate = str(folder / "cert.pem")

    def answers() -> bool:
        assert server.process.poll() is None, server.text()
        with requests.Session() as session:
            try:
                return server.get(session).ok
            except requests.ConnectionError:
                return False

    try:
        wait_until(answers, f"TLS is answered:\n{server.text()}")
        yield server
    finally:
        server.stop()
        print(server.text())
