"""deploy/ as shipped: nginx.conf and production.env in front of and around the real server in production mode, and TLS
in gunicorn itself. Only ports, paths and names are replaced."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
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

from .conftest import LONG_WAIT_SECONDS, PYTHON_MODULE, ROOT, Server, clean_environment, free_port, wait_until

DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
OPENSSL = shutil.which("openssl")
CURL = shutil.which("curl")
SECRET = "0123456789abcdef" * 4
SIGN_IN_LIMIT = 3
HSTS = "max-age=31536000; includeSubDomains"

needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx here: apt-get install nginx-light")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="no openssl here to make a certificate with")
pytestmark = needs_openssl


# ---- Behind nginx


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


@pytest.mark.skipif(CURL is None, reason="no curl here")
def test_site_speaks_http_2(site: Site) -> None:
    if "HTTP2" not in curl("--version"):
        pytest.skip("this curl has no HTTP/2")

    answer = curl("--http2", "--cacert", str(site.certificate), "--write-out", "\n%{http_version}", site.https + "/")

    assert answer.splitlines()[-1] == "2"
    assert "<!doctype html>" in answer.lower()


def curl(*arguments: str) -> str:
    command = [str(CURL), "--silent", "--show-error", "--max-time", "60", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONG_WAIT_SECONDS).stdout


def test_plain_http_is_sent_to_https_and_a_post_is_refused(site: Site) -> None:
    asked = requests.get(site.http + "/boards/deployed?x=1", allow_redirects=False, timeout=30)
    posted = requests.post(site.http + "/sign-in", data={"password": "in the clear"}, timeout=30)

    assert asked.status_code == 308
    assert asked.headers["Location"] == "https://localhost/boards/deployed?x=1"
    assert posted.status_code == 403


def test_pages_come_over_https_with_hsts_and_a_secure_cookie_and_no_redirect(site: Site) -> None:
    with site.client() as client:
        answer = client.get(site.https + "/sign-in", allow_redirects=False, timeout=30)

    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"] == HSTS
    assert re.search(r"; *Secure(;|$)", answer.headers["Set-Cookie"])
    assert "HttpOnly" in answer.headers["Set-Cookie"]


def test_no_answer_tells_versions(site: Site) -> None:
    with site.client() as client:
        answers = [
            client.get(site.https + path, timeout=30) for path in ("/", "/static/boards.css", "/static/none", "/none")
        ]
    answers.append(requests.get(site.http + "/", allow_redirects=False, timeout=30))

    assert [answer.headers["Server"] for answer in answers] == ["nginx"] * 5
    assert not any(re.search(r"nginx/\d|gunicorn", answer.text) for answer in answers)


def test_own_addresses_in_pages_and_redirects_are_those_the_client_used(site: Site) -> None:
    with site.client() as client:
        answer = client.get(site.https + "/tokens", allow_redirects=False, timeout=30)

    assert answer.status_code in (302, 303)
    assert answer.headers["Location"].removeprefix(site.https).startswith("/sign-in")


def test_forged_forwarded_headers_are_not_believed(site: Site) -> None:
    """Sign-in attempts are limited by client address: forging one must not bring new attempts."""
    statuses = [
        attempt(site, "127.0.0.11", {"X-Forwarded-For": f"203.0.113.{number}", "Forwarded": f"for=198.51.100.{number}"})
        for number in range(SIGN_IN_LIMIT + 1)
    ]

    assert 429 not in statuses[:-1]
    assert statuses[-1] == 429


def test_application_sees_the_address_of_the_client_and_not_the_one_of_nginx(site: Site) -> None:
    for _ in range(SIGN_IN_LIMIT):
        attempt(site, "127.0.0.12", {})

    assert attempt(site, "127.0.0.12", {}) == 429
    assert attempt(site, "127.0.0.13", {}) == 422


def attempt(site: Site, source_address: str, headers: dict[str, str]) -> int:
    """The status of a failing sign-in, each to another account."""
    with site.client(source_address) as client:
        page = client.get(site.https + "/sign-in", timeout=30).text
        csrf = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
        assert csrf is not None, page
        form = {
            "csrf_token": csrf[1],
            "email": f"{source_address}-{time.monotonic_ns()}@example.org",
            "password": "not the password",
        }
        # As a browser does it: the CSRF protection of HTTPS pages wants to see where the form came from.
        headers = {**headers, "Referer": site.https + "/sign-in"}
        return client.post(site.https + "/sign-in", data=form, headers=headers, timeout=30).status_code


@pytest.mark.parametrize("header", ["X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Forwarded-Ssl"])
def test_scheme_can_not_be_forged(site: Site, header: str) -> None:
    with site.client() as client:
        answer = client.get(site.https + "/sign-in", headers={header: "http"}, allow_redirects=False, timeout=30)

    assert answer.status_code == 200


def test_events_arrive_before_the_last_source_is_done(site: Site, upstream: Upstream) -> None:
    upstream.gate.clear()

    with (
        site.client() as client,
        client.get(site.https + "/api/boards/deployed/stream", stream=True, timeout=60) as answer,
    ):
        events = source_events(answer)
        first = next(events)
        upstream.gate.set()  # only now: had nginx kept the first event back, the second source would time out
        second = next(events)

    assert first["name"] == "fast"
    assert (second["name"], second.get("status")) == ("gated", 200)


def source_events(answer: requests.Response) -> Iterator[dict[str, object]]:
    assert answer.status_code == 200
    for line in answer.iter_lines():
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def test_static_files_come_from_nginx_with_caching_and_compression(site: Site) -> None:
    with site.client() as client:
        answer = client.get(site.https + "/static/boards.css", timeout=30)
        again = client.get(
            site.https + "/static/boards.css",
            headers={"If-Modified-Since": answer.headers["Last-Modified"]},
            timeout=30,
        )

    assert answer.content == (ROOT / "app" / "static" / "boards.css").read_bytes()
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Strict-Transport-Security"] == HSTS
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert again.status_code == 304


def test_body_over_one_megabyte_is_refused_as_a_problem_document(site: Site) -> None:
    with site.client() as client:
        answer = client.post(site.https + "/api/boards", data=b"x" * 1_100_000, timeout=30)

    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 413


def test_body_of_just_under_one_megabyte_reaches_the_application(site: Site) -> None:
    with site.client() as client:
        answer = client.post(site.https + "/api/boards", data=b"x" * 1_048_000, timeout=30)

    assert answer.status_code in (400, 401, 415)


def test_health_checks_answer_over_http_by_address_and_nothing_else_does(site: Site) -> None:
    by_address = f"http://127.0.0.1:{site.nginx.http_port}"

    assert requests.get(by_address + "/healthz", timeout=30).json() == {"status": "ok"}
    assert requests.get(by_address + "/readyz", timeout=30).json() == {"status": "ready"}
    with pytest.raises(requests.ConnectionError):
        requests.get(by_address + "/", timeout=30)


def test_questions_of_a_certificate_authority_are_answered_over_plain_http(site: Site) -> None:
    """As certbot's --webroot has it; everything else of that name is redirected."""
    challenge = site.nginx.folder / "acme/.well-known/acme-challenge/token-1"
    challenge.parent.mkdir(parents=True)
    challenge.write_text("token-1.thumbprint")

    answer = requests.get(site.http + "/.well-known/acme-challenge/token-1", allow_redirects=False, timeout=30)

    assert (answer.status_code, answer.text) == (200, "token-1.thumbprint")
    assert requests.get(site.http + "/elsewhere", allow_redirects=False, timeout=30).status_code == 308


def test_unknown_host_name_is_refused_before_a_certificate_is_shown(site: Site) -> None:
    context = ssl.create_default_context(cafile=str(site.certificate))

    with (
        socket.create_connection(("127.0.0.1", site.nginx.https_port), timeout=30) as connection,
        pytest.raises(ssl.SSLError, match="unrecognized name"),
    ):
        context.wrap_socket(connection, server_hostname="somebody.example.com")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(site: Site, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(site.certificate))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion.TLSv1"):
        context.minimum_version = context.maximum_version = version

    with (
        socket.create_connection(("127.0.0.1", site.nginx.https_port), timeout=30) as connection,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(connection, server_hostname="localhost")


def test_access_log_has_no_query_and_no_reset_token(site: Site) -> None:
    with site.client() as client:
        client.get(site.https + "/reset-password/a-secret-token", timeout=30)
        client.get(site.https + "/sign-in?next=a-secret-query", timeout=30)
        log = site.nginx.folder / "access.log"
        wait_until(lambda: "GET /sign-in HTTP" in log.read_text(), "the request is logged")

    assert '"GET /reset-password/... HTTP' in log.read_text()
    assert "a-secret" not in log.read_text()


def test_reload_under_load_loses_no_request(site: Site, upstream: Upstream) -> None:
    upstream.gate.set()
    before = {worker.pid for worker in site.server.workers()}
    assert before

    with Load(site) as load:
        wait_until(lambda: load.count() > 20, "the load runs")
        site.server.signal(signal.SIGHUP)
        wait_until(
            lambda: before.isdisjoint(worker.pid for worker in site.server.workers()), "all old workers have left"
        )
        seen = load.count()
        wait_until(lambda: load.count() > seen + 20, "the new workers answer")

    assert load.failures() == []


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


@needs_nginx
def test_server_that_is_gone_gives_a_problem_document(tls: tuple[Path, Path], short_folder: Path) -> None:
    socket_path = f"unix:{short_folder}/nobody.sock"
    nginx = Nginx(short_folder, *tls, upstream={"unix:/run/greenroom/greenroom.sock": socket_path})
    try:
        answer = requests.get(f"https://localhost:{nginx.https_port}/", verify=str(tls[0]), timeout=30)
    finally:
        nginx.stop()

    assert answer.status_code == 502
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 502
    assert answer.headers["Retry-After"] == "5"
    assert answer.headers["Strict-Transport-Security"] == HSTS


@needs_nginx
def test_hosts_behind_one_nginx_are_restarted_one_after_the_other_and_no_request_is_lost(
    tls: tuple[Path, Path], database_url: str, start: Callable[..., Server], short_folder: Path
) -> None:
    ports = [free_port(), free_port()]
    nginx = Nginx(
        short_folder,
        *tls,
        upstream={
            "server unix:/run/greenroom/greenroom.sock;": "",
            "#least_conn;": "least_conn;",
            "#server 10.0.0.11:8000": f"server 127.0.0.1:{ports[0]}",
            "#server 10.0.0.12:8000": f"server 127.0.0.1:{ports[1]}",
        },
    )

    def start_host(port: int) -> Server:
        server = start(
            production_environment(
                database_url,
                GREENROOM_BIND=f"127.0.0.1:{port}",
                PUBLIC_URL=f"https://localhost:{nginx.https_port}",
                TRUSTED_PROXIES="127.0.0.1",
                WEB_CONCURRENCY="1",
                GREENROOM_COMPANION="no",  # its checks are not the matter here, and it takes seconds to start
            )
        )
        server.url = f"http://127.0.0.1:{port}"
        return server

    try:
        hosts = [start_host(port) for port in ports]
        for host in hosts:
            host.wait_ready()
        site = Site(nginx, hosts[0], tls[0])

        with Load(site, ((("GET", "/sign-in"), 200),)) as load:
            wait_until(lambda: load.count() > 20, "the load runs")
            for index, port in enumerate(ports):
                assert hosts[index].stop() == 0
                hosts[index] = start_host(port).wait_ready()
                # As deploy/README.md says: the next one when nginx uses this one again.
                wait_until(nginx.is_logging(f" upstream 127.0.0.1:{port} "), "nginx uses the host again")
    finally:
        nginx.stop()

    assert load.failures() == []


# ---- TLS in gunicorn


def test_gunicorn_itself_serves_https_and_nothing_else(
    tls: tuple[Path, Path], database_url: str, start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_tls(start, tls, database_url, monkeypatch)

    # Closed at once: a stop waits for idle connections, up to GREENROOM_KEEPALIVE_SECONDS.
    closed = {"Connection": "close"}
    answer = requests.get(server.url + "/sign-in", headers=closed, allow_redirects=False, timeout=30)

    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"] == HSTS
    assert re.search(r"; *Secure(;|$)", answer.headers["Set-Cookie"])
    plain = requests.get(server.url.replace("https://", "http://") + "/healthz", headers=closed, timeout=30)
    assert (plain.status_code, "https" in plain.text) == (400, True)


def test_renewed_certificate_is_served_after_a_reload(
    tls: tuple[Path, Path],
    database_url: str,
    start: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    mine = [Path(shutil.copy(path, tmp_path)) for path in tls]
    server = start_tls(start, (mine[0], mine[1]), database_url, monkeypatch)
    old = served_certificate(server)

    make_certificate(tmp_path)
    server.signal(signal.SIGHUP)
    wait_until(lambda: served_certificate(server) != old, "the new certificate is served")
    # For a moment workers of both kinds serve: the replacements come first.
    new = ssl.PEM_cert_to_DER_cert(mine[0].read_text())
    wait_until(lambda: all(served_certificate(server) == new for _ in range(10)), "nobody serves the old one any more")


def start_tls(
    start: Callable[..., Server], tls: tuple[Path, Path], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Server:
    """gunicorn as in production, with TLS and without a proxy; the clients of this process trust the certificate."""
    port = free_port()
    server = start(
        production_environment(
            database_url,
            GREENROOM_BIND=f"127.0.0.1:{port}",
            GREENROOM_TLS_CERTIFICATE=str(tls[0]),
            GREENROOM_TLS_KEY=str(tls[1]),
            PUBLIC_URL=f"https://localhost:{port}",
            TRUSTED_PROXIES="",
            WEB_CONCURRENCY="1",
        )
    )
    server.url = f"https://localhost:{port}"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls[0]))
    return server.wait_ready()


def served_certificate(server: Server) -> bytes:
    port = int(server.url.rpartition(":")[2])
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=30))


# ---- systemd


def test_commands_of_the_readme_check_the_settings_and_make_the_tables(database_url: str, tmp_path: Path) -> None:
    settings = tmp_path / "production.env"
    settings.write_text("".join(f"{name}={value}\n" for name, value in production_environment(database_url).items()))
    readme = (DEPLOY / "README.md").read_text()
    (alias,) = re.findall(r"alias with-settings='(.*)'", readme)
    commands = [
        f"{alias} {command}".replace("/etc/greenroom/production.env", str(settings))
        for command in re.findall(r"^ +with-settings (.*)$", readme, re.M)
    ]

    printed = [
        subprocess.run(
            command.replace(".venv/bin/", str(Path(PYTHON_MODULE[0]).parent) + "/").split(),
            cwd=ROOT,
            env=clean_environment(),
            check=True,
            capture_output=True,
            text=True,
            timeout=LONG_WAIT_SECONDS,
        ).stdout
        for command in commands
    ]

    assert len(printed) == 2
    assert printed[0] == "settings are fine\n"


def test_gunicorn_tells_systemd_when_it_is_up(start: Callable[..., Server], short_folder: Path) -> None:
    """Type=notify in greenroom.service waits for this."""
    (short_folder / "plain.py").write_text("def app(environ, start_response):\n    raise AssertionError\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(short_folder / "notify"))
        systemd.settimeout(LONG_WAIT_SECONDS)

        start({"NOTIFY_SOCKET": str(short_folder / "notify"), "WSGI_APP": "plain:app", "PYTHONPATH": str(short_folder)})

        assert systemd.recv(4096).startswith(b"READY=1\n")
