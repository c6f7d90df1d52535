"""The server in production mode behind a real nginx, both configured as deploy/ ships them, for the tests of that."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from dotenv import dotenv_values
from requests.adapters import HTTPAdapter

from app import create_app
from app.extensions import db
from app.models import Board, Source
from deploy.drill.parts import nginx_configuration

from .conftest import LONG_WAIT_SECONDS, PYTHON_MODULE, ROOT, Server, free_port, wait_until

DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
OPENSSL = shutil.which("openssl")
CURL = shutil.which("curl")
SECRET = "0123456789abcdef" * 4
SIGN_IN_LIMIT = 3
HSTS = "max-age=31536000; includeSubDomains"

needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx here: apt-get install nginx-light")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="no openssl here to make a certificate with")


@dataclass
class Site:
    """A server behind nginx: `http` and `https` are nginx's addresses."""

    nginx: "Nginx"
    server: Server
    certificate: Path

    @property
    def https(self) -> str:
        return f"https://localhost:{self.nginx.https_port}"

    @property
    def http(self) -> str:
        return f"http://localhost:{self.nginx.http_port}"

    def client(self, source_address: str = "127.0.0.1") -> requests.Session:
        """A client of the site that connects from `source_address`."""
        session = requests.Session()
        session.mount("https://", FromAddress(source_address))
        session.verify = str(self.certificate)
        session.trust_env = False  # REQUESTS_CA_BUNDLE would win over `verify`
        return session


class FromAddress(HTTPAdapter):
    """Connects from one of the loopback addresses, so that one machine can be several clients."""

    def __init__(self, source_address: str) -> None:
        self.source_address = (source_address, 0)
        super().__init__()

    def init_poolmanager(self, *arguments: object, **options: object) -> None:
        super().init_poolmanager(*arguments, source_address=self.source_address, **options)  # type: ignore[arg-type]


class Nginx:
    """A real nginx with the shipped configuration, on free ports of the loopback interface."""

    def __init__(self, folder: Path, certificate: Path, key: Path, upstream: dict[str, str]) -> None:
        self.folder = folder
        self.http_port, self.https_port = free_port(), free_port()
        self.config = folder / "nginx.conf"
        changes = {
            "/etc/nginx/tls/fullchain.pem": str(certificate),
            "/etc/nginx/tls/privkey.pem": str(key),
            "/var/www/acme": f"{folder}/acme",
            **upstream,
        }
        self.config.write_text(nginx_configuration(folder, self.http_port, self.https_port, changes))
        check = subprocess.run([*self.command(), "-t"], capture_output=True, text=True, timeout=LONG_WAIT_SECONDS)
        assert check.returncode == 0, check.stderr
        assert "[warn]" not in check.stderr, check.stderr
        self.process = subprocess.Popen([*self.command(), "-g", "daemon off;"])
        wait_until(lambda: is_listening(self.https_port), "nginx listens")

    def command(self) -> list[str]:
        assert NGINX is not None
        return [NGINX, "-p", str(self.folder), "-c", str(self.config), "-e", str(self.folder / "error.log")]

    def is_logging(self, text: str) -> Callable[[], bool]:
        """Whether `text` is in a line that was written after now."""
        log = self.folder / "access.log"
        start = log.stat().st_size
        return lambda: text in log.read_text()[start:]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(LONG_WAIT_SECONDS)
        print(f"--- nginx\n{(self.folder / 'error.log').read_text(errors='replace')}")


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) for localhost, signed by itself."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [str(OPENSSL), *options.split(), "-addext", "subjectAltName=DNS:localhost"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=LONG_WAIT_SECONDS,
    )
    return certificate, key


@pytest.fixture
def short_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


def production_environment(database_url: str, **changes: str) -> dict[str, str]:
    """deploy/production.env with its placeholders filled in, as an operator would."""
    shipped = {name: value or "" for name, value in dotenv_values(DEPLOY / "production.env").items()}
    mine = {
        "SECRET_KEY": SECRET,
        "DATABASE_URL": database_url,
        # Empty: PostgreSQL does what Redis would do. There is not everywhere one to test with.
        "REDIS_URL": "",
        "CELERY_BROKER_URL": "",
        "MAIL_SERVER": "localhost",
        "MAIL_PASSWORD": "a-password-for-nobody",
    }
    return {**shipped, **mine, **changes}


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, tls: tuple[Path, Path], database_url: str, upstream: "Upstream"
) -> Iterator[Site]:
    """The shipped configuration, one host. Shared: leave it as it was."""
    if NGINX is None:
        pytest.skip("no nginx here: apt-get install nginx-light")
    folder = tmp_path_factory.mktemp("site")
    bind = f"unix:{folder}/greenroom.sock"
    with ExitStack() as stack:
        nginx = Nginx(folder, *tls, upstream={"unix:/run/greenroom/greenroom.sock": bind})
        stack.callback(nginx.stop)
        environ = production_environment(
            database_url,
            GREENROOM_BIND=bind,
            PUBLIC_URL=f"https://localhost:{nginx.https_port}",
            INSTANCE_PATH=str(folder / "instance"),
            ALLOW_PRIVATE_SOURCES="yes",
            SIGN_IN_LIMIT=str(SIGN_IN_LIMIT),
            FETCH_LIMIT="0",  # one client asks as fast as it can
            WEB_CONCURRENCY="2",
        )
        make_board(database_url, "deployed", upstream)
        server = Server([*PYTHON_MODULE, "gunicorn"], environ, folder / "server.log", port=0)
        stack.callback(server.stop)
        made = Site(nginx, server, tls[0])
        wait_ready(made)
        yield made


def wait_ready(site: Site) -> None:
    def is_ready() -> bool:
        if site.server.process.poll() is not None:
            pytest.fail(f"the server ended with {site.server.process.returncode}:\n{site.server.text()}")
        if not (site.nginx.folder / "greenroom.sock").exists():
            return False  # asking now would only fill nginx's log
        with site.client() as client:
            return client.get(site.https + "/readyz", timeout=30).status_code == 200

    wait_until(is_ready, "the site is ready")


class Upstream(ThreadingHTTPServer):
    """Sources: /fast answers, /gated answers when the gate opens."""

    daemon_threads = True

    def __init__(self) -> None:
        self.gate = threading.Event()
        super().__init__(("127.0.0.1", 0), UpstreamHandler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class UpstreamHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Upstream)
        if self.path == "/gated":
            self.server.gate.wait(LONG_WAIT_SECONDS)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()
    thread.join(LONG_WAIT_SECONDS)


def make_board(database_url: str, slug: str, upstream: Upstream) -> None:
    """A public board with a fast and a gated source, in the database that the site uses."""
    app = create_app({"DATABASE_URL": database_url})
    with app.app_context():
        db.session.execute(db.delete(Board).where(Board.slug == slug))
        board = Board(slug=slug, title=slug, is_public=True)
        board.sources = [
            Source(position=0, name="gated", url=upstream.url("/gated"), timeout_ms=9_000),
            Source(position=1, name="fast", url=upstream.url("/fast"), timeout_ms=9_000),
        ]
        db.session.add(board)
        db.session.commit()
        db.engine.dispose()


class Load:
    """Clients that go on asking the site, with reads and with writes that nginx may not repeat."""

    WANTED = ((("GET", "/api/boards/deployed/results"), 200), (("POST", "/api/boards"), 401))

    def __init__(self, site: Site, requests_wanted: tuple[tuple[tuple[str, str], int], ...] = WANTED) -> None:
        self.site = site
        self.wanted = requests_wanted
        self.results: list[tuple[str, str, int, str]] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(4)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(LONG_WAIT_SECONDS)

    def count(self) -> int:
        return len(self.results)

    def failures(self) -> list[tuple[str, str, int, str]]:
        expected = {(*request, status) for request, status in self.wanted}
        return [result for result in self.results if result[:3] not in expected]

    def _run(self) -> None:
        with self.site.client() as client:
            while not self.stop.is_set():
                for (method, path), _ in self.wanted:
                    try:
                        answer = client.request(method, self.site.https + path, json={}, timeout=60)
                        self.results.append((method, path, answer.status_code, answer.text[:200]))
                    except requests.RequestException as exc:
                        self.results.append((method, path, 0, repr(exc)))
                    self.stop.wait(0.01)
