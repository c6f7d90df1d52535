"""Connections that applications take: WebSockets of flask-sock, raw sockets; plain and over TLS."""

import functools
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
import requests
import websocket

from .conftest import Server, Servers, free_port, wait_until

APP = {
    "PYTHONPATH": str(Path(__file__).parent / "apps"),
    "WSGI_APP": "sockets:application",
    "WEB_CONCURRENCY": "1",
    "GREENROOM_REQUEST_BUDGET_MILLISECONDS": "1000",
    "GREENROOM_KEEPALIVE_SECONDS": "1",
    "GREENROOM_BODY_TIMEOUT_SECONDS": "1",
    "GREENROOM_SEND_TIMEOUT_SECONDS": "1",
}
# Longer than each of these, so that what lives has outlived them.
BEYOND_SECONDS = 3.0
GOING_AWAY = b"\x88\x02\x03\xe9"


class Site:
    """A server, and how to reach it."""

    def __init__(self, server: Server, certificate: dict[str, str] | None) -> None:
        self.server = server
        self.context = certificate and ssl.create_default_context(cafile=certificate["GREENROOM_TLS_CERTIFICATE"])
        self.verify = certificate["GREENROOM_TLS_CERTIFICATE"] if certificate else True
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.port}"
        self.ended_before = ""

    def wait_ended(self, name: str) -> None:
        """Wait until a view of this name has ended in this test."""
        wait_until(lambda: self.get("/ended").removeprefix(self.ended_before).split() == [name], f"{name} has ended")

    def get(self, path: str) -> str:
        return requests.get(self.url + path, verify=self.verify, timeout=30).text

    def is_up(self) -> bool:
        try:
            return self.get("/") == "ok"
        except requests.RequestException:
            return False

    def connect(self) -> Any:
        sock = create_connection(("127.0.0.1", self.server.port), 30)
        return self.context.wrap_socket(sock, server_hostname="localhost") if self.context else sock

    def websocket(self, path: str) -> Any:
        options = {"ca_certs": self.verify} if self.context else {}
        return closing(
            websocket.create_connection(self.url.replace("http", "ws", 1) + path, timeout=30, sslopt=options)
        )

    def ask(self, path: str) -> Any:
        sock = self.connect()
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return closing(sock)


@pytest.fixture(scope="module", params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, certificate: dict[str, str]) -> dict[str, str] | None:
    return certificate if request.param == "tls" else None


def started(start: Callable[..., Server], tls: dict[str, str] | None, **settings: str) -> Site:
    server = start({**APP, **(tls or {}), **settings})
    site = Site(server, tls)
    wait_until(site.is_up, f"the server is ready:\n{server.text()}")
    return site


@pytest.fixture
def start_site(start: Callable[..., Server], tls: dict[str, str] | None) -> Callable[..., Site]:
    return functools.partial(started, start, tls)


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory, tls: dict[str, str] | None) -> Iterator[Site]:
    servers = Servers(tmp_path_factory.mktemp("site"))
    yield started(servers.start_gunicorn, tls)
    servers.stop()


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The server of all tests that do it no harm; each waits for the end of the views that it has begun."""
    shared_site.ended_before = shared_site.get("/ended")
    yield shared_site
    assert "Traceback" not in shared_site.server.text()


def until_closed(sock: Any) -> bytes:
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except OSError:
        data += b"<reset>"
    return data


def test_websocket_outlives_every_timeout_and_nothing_but_frames_is_on_its_wire(site: Site) -> None:
    with site.websocket("/echo") as ws:
        ws.send("first")
        first = ws.recv()
        time.sleep(BEYOND_SECONDS)  # the silence is what is tested
        ws.send("x" * 2_000_000)
        large = ws.recv()
        ws.close(timeout=10)

    assert (first, len(large)) == ("first", 2_000_000)
    site.wait_ended("echo")


def test_websocket_that_only_sends_goes_on(site: Site) -> None:
    with site.websocket("/push") as ws:
        assert [ws.recv() for _ in range(30)] == [str(number) for number in range(30)]


@pytest.mark.parametrize("is_polite", [True, False])
def test_owner_of_a_websocket_sees_its_client_leave(site: Site, is_polite: bool) -> None:
    with site.websocket("/echo") as ws:
        ws.send("hello")
        ws.recv()
        if is_polite:
            ws.close(timeout=10)
        else:
            ws.shutdown()

    site.wait_ended("echo")


def test_error_of_a_websocket_is_logged_and_not_written_among_the_frames(start_site: Callable[..., Site]) -> None:
    site = start_site()
    with site.websocket("/fail") as ws:
        ws.send("go")
        data = until_closed(ws.sock)

    assert b"HTTP" not in data
    wait_until(lambda: "RuntimeError: in the middle of the frames" in site.server.text(), "it is logged")
    assert site.server.text().count("Traceback") == 1


def test_websockets_are_told_at_a_stop_which_waits_for_nobody(start_site: Callable[..., Site]) -> None:
    site = start_site(GREENROOM_GRACEFUL_TIMEOUT_SECONDS="60")
    with site.websocket("/echo") as ws, site.websocket("/push") as ticker:
        ws.send("hello")
        ws.recv()
        ticker.recv()
        began = time.monotonic()
        exit_code = site.server.stop()
        took = time.monotonic() - began
        data, ticks = until_closed(ws.sock), until_closed(ticker.sock)

    assert exit_code == 0
    assert took < 15.0
    assert data.removesuffix(b"<reset>") == GOING_AWAY
    assert GOING_AWAY in ticks
    assert "echo has ended" in site.server.text()
    assert "Traceback" not in site.server.text()


def test_websocket_whose_view_waits_for_others_is_told_too(start_site: Callable[..., Site]) -> None:
    site = start_site(GREENROOM_GRACEFUL_TIMEOUT_SECONDS="60")
    with site.websocket("/deaf") as ws:
        began = time.monotonic()
        site.server.signal(15)
        data = until_closed(ws.sock)
        exit_code = site.server.wait_gone()

    assert exit_code == 0
    assert time.monotonic() - began < 20.0
    assert data.startswith(GOING_AWAY)
    assert "deaf has ended" in site.server.text()


def test_application_that_only_looked_at_the_socket_answers_as_usual(site: Site) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = site.verify
        answers = [session.get(f"{site.url}/peek", timeout=30).json() for _ in range(3)]

    assert [answer["is_gone"] for answer in answers] == [False] * 3
    assert len({answer["port"] for answer in answers}) == 1, "the connection is kept"


def test_raw_protocol_has_the_connection_for_itself(site: Site) -> None:
    with site.ask("/raw") as sock:
        hello = sock.recv(100)
        time.sleep(BEYOND_SECONDS)
        sock.sendall(b"still there?")
        answer = sock.recv(100)

    assert (hello, answer) == (b"hello\n", b"STILL THERE?")
    site.wait_ended("raw")


@pytest.mark.parametrize("path", ["/raw/write", "/write"])
def test_client_of_a_raw_protocol_that_leaves_is_a_line_and_no_error(site: Site, path: str) -> None:
    with site.ask(path) as sock:
        sock.recv(100)

    site.wait_ended("write")
    wait_until(lambda: f"GET {path}: its client has left" in site.server.text(), "it is a line")


def test_raw_protocol_reads_the_end_when_the_worker_has_to_stop(start_site: Callable[..., Site]) -> None:
    site = start_site(GREENROOM_GRACEFUL_TIMEOUT_SECONDS="3")
    with site.ask("/raw") as sock:
        sock.recv(100)
        site.server.signal(15)
        sock.sendall(b"served on")
        served_on = sock.recv(100)
        rest = until_closed(sock)

    assert (served_on, rest.removesuffix(b"<reset>")) == (b"SERVED ON", b"")
    assert site.server.wait_gone() == 0


def test_ops_page_says_what_a_request_has_become(start: Callable[..., Server]) -> None:
    port = free_port()
    settings = {"GREENROOM_OPS_BIND": f"127.0.0.1:{port}", "GREENROOM_REQUEST_BUDGET_MILLISECONDS": "60000"}
    site = Site(start({**APP, **settings}), None)
    wait_until(site.is_up, "the server is ready")

    def shown() -> list[str]:
        try:
            answer = requests.get(f"http://127.0.0.1:{port}/view", timeout=10)
        except requests.ConnectionError:  # it starts after the workers
            return []
        return sorted(found(answer.json(), "became")) if answer.ok else []

    with site.websocket("/echo"), site.ask("/raw") as raw, site.ask("/slow"):
        raw.recv(100)
        wait_until(lambda: [one for one in shown() if one] == ["taken over", "websocket"], "both are shown")


def found(state: Any, key: str) -> Iterator[str]:
    """The values of `key`, anywhere in it."""
    if isinstance(state, dict):
        for name, value in state.items():
            if name == key:
                yield value
            else:
                yield from found(value, key)
    elif isinstance(state, list):
        for value in state:
            yield from found(value, key)


def test_frames_of_a_client_are_followed() -> None:
    from greenroom.worker.takeover import Frames

    pieces = [b"\x81\x85abcd12345", b"\x82\xfe\x01\x00abcd" + b"x" * 256, b"\x82\xff" + (70_000).to_bytes(8) + b"abcd"]
    data = pieces[0] + pieces[1] + pieces[2] + b"y" * 70_000 + b"\x89\x80abcd"
    ends = {11, 11 + 264, 11 + 264 + 14 + 70_000, len(data)}
    for step in (1, 2, 3, 7, 1000, len(data)):
        frames = Frames()
        between = set()
        for start in range(0, len(data), step):
            frames.feed(data[start : start + step])
            if frames.is_between:
                between.add(min(start + step, len(data)))
        assert between == {end for end in ends if end % step == 0 or end == len(data)}
