"""Clients that leave, or send no body: one line, and nothing for whoever is told of errors. With a real Sentry."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from .conftest import Server, wait_until


class Reported:
    """A server, and what has been reported of its errors."""

    def __init__(self, server: Server, reports: Path, certificate: dict[str, str] | None) -> None:
        self.server = server
        self.reports = reports
        self.context = certificate and ssl.create_default_context(cafile=certificate["GREENROOM_TLS_CERTIFICATE"])
        self.verify = certificate["GREENROOM_TLS_CERTIFICATE"] if certificate else True
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.port}"

    def is_up(self) -> bool:
        try:
            return requests.get(self.url + "/readyz", verify=self.verify, timeout=30).ok
        except requests.RequestException:
            return False

    def connect(self) -> Any:
        sock = socket.create_connection(("127.0.0.1", self.server.port), 60)
        return self.context.wrap_socket(sock, server_hostname="localhost") if self.context else sock

    def hang_up(self, path: str) -> None:
        """Ask, and leave while the request waits."""
        with self.connect() as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            requests.get(self.url + "/readyz", verify=self.verify, timeout=30)  # the other request runs by now

    def reported(self) -> list[str]:
        return self.reports.read_text().splitlines() if self.reports.exists() else []

    def lines_about(self, path: str) -> list[str]:
        return [line for line in self.server.text().splitlines() if path in line]


@pytest.fixture
def upstream() -> Iterator[str]:
    """It accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture(params=["plain", "tls"])
def site(
    request: pytest.FixtureRequest,
    start: Callable[..., Server],
    certificate: dict[str, str],
    upstream: str,
    tmp_path: Path,
) -> Reported:
    is_tls = request.param == "tls"
    reports = tmp_path / "reports"
    server = start(
        {
            "PYTHONPATH": str(Path(__file__).parent / "apps"),
            "WSGI_APP": "hangups:app",
            "WEB_CONCURRENCY": "1",
            "REPORTS": str(reports),
            "UPSTREAM": upstream,
            "GREENROOM_BODY_TIMEOUT_SECONDS": "1",
            **(certificate if is_tls else {}),
        }
    )
    made = Reported(server, reports, certificate if is_tls else None)
    wait_until(made.is_up, f"the server is ready:\n{server.text()}")
    return made


KINDS = ("sleep", "lock", "queue", "pool", "process", "upstream", "translated", "replaced")


def test_client_that_leaves_is_one_line_and_no_error(site: Reported) -> None:
    for kind in KINDS:
        site.hang_up(f"/wait/{kind}")
    for kind in KINDS:
        wait_until(lambda kind=kind: site.lines_about(f"/wait/{kind}"), f"{kind} is a line")
    site.server.stop()  # so nothing can come later

    text = site.server.text()
    assert "Traceback" not in text
    assert "ERROR" not in text
    assert {kind: len(site.lines_about(f"/wait/{kind}")) for kind in KINDS} == dict.fromkeys(KINDS, 1)
    assert all("[INFO] GET /wait/" in line and "the client has left" in line for line in site.lines_about("/wait/"))
    assert set(site.reported()) <= {"handler of 500"}


def test_client_that_leaves_a_stream_is_one_line_and_no_error(site: Reported) -> None:
    with site.connect() as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000)

    wait_until(lambda: site.lines_about("GET /stream"), "it is a line")
    site.server.stop()
    assert len(site.lines_about("/stream")) == 1
    assert "Traceback" not in site.server.text()
    assert site.reported() == []


def test_error_of_its_own_is_reported_though_the_client_has_left(site: Reported) -> None:
    for where, error in (("except", "ZeroDivisionError"), ("finally", "KeyError")):
        site.hang_up(f"/bug/{where}")

        wait_until(lambda error=error: f"signal: {error}" in site.reported(), "the signal is sent")
        wait_until(lambda error=error: f"sentry: {error}" in site.reported(), "Sentry is told")
        wait_until(lambda error=error: f"{error}:" in site.server.text(), "it is logged")
        assert f"Exception on /bug/{where} [GET]" in site.server.text()


BODIES = {"length": b"Content-Length: 100\r\n\r\na=1", "chunked": b"Transfer-Encoding: chunked\r\n\r\n6\r\na=1"}
TYPES = {"form": b"application/x-www-form-urlencoded", "json": b"application/json"}


HOWS = ("form", "json", "data", "stream", "translated")


def test_body_that_does_not_come_is_408_whatever_the_application_makes_of_it(site: Reported) -> None:
    answers = {}
    with ExitStack() as stack:
        clients = {(how, name): stack.enter_context(site.connect()) for how in HOWS for name in BODIES}
        for (how, name), client in clients.items():
            head = f"POST /body/{how} HTTP/1.1\r\nHost: x\r\nContent-Type: ".encode() + TYPES.get(how, b"text/plain")
            client.sendall(head + b"\r\n" + BODIES[name])
        for which, client in clients.items():
            answers[which] = b"".join(iter(lambda client=client: client.recv(65536), b""))
    site.server.stop()

    for which, answer in answers.items():
        assert answer.startswith(b"HTTP/1.1 408 "), (which, answer)
        assert answer.count(b"HTTP/1.1") == 1, which
    assert "Traceback" not in site.server.text()
    assert set(site.reported()) <= {"handler of 500"}
    assert {how: len(site.lines_about(f"POST /body/{how}")) for how in HOWS} == dict.fromkeys(HOWS, len(BODIES))


def test_half_a_body_is_400_and_no_error(site: Reported) -> None:
    with site.connect() as client:
        client.sendall(b"POST /body/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome")
        if site.context is None:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    wait_until(lambda: site.lines_about("POST /body/stream"), "it is a line")
    site.server.stop()

    assert len(site.lines_about("POST /body/stream")) == 1
    assert "Traceback" not in site.server.text()
    assert set(site.reported()) <= {"handler of 500"}
