"""Clients and servers of TLS and HTTP/2, for the tests of both."""

import functools
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import pytest
import requests

from .conftest import PYTHON_MODULE, Server, wait_until
from .test_drain import OURS

Start = Callable[..., Server]
HTTP2 = (*PYTHON_MODULE, "gunicorn", "--http-protocols", "h2,h1")


@pytest.fixture
def start_tls(start: Start, certificate: dict[str, str]) -> Start:
    """`start` with TLS, ready when a TLS client gets an answer."""

    return functools.partial(started_tls, start, certificate)


@pytest.fixture
def share_tls(share: Start, certificate: dict[str, str]) -> Start:
    """`share` with TLS: as `start_tls`, for tests that do the server no harm."""
    return functools.partial(started_tls, share, certificate)


def started_tls(
    start: Start,
    certificate: dict[str, str],
    environ: dict[str, str] = OURS,
    command: tuple[str, ...] = (*PYTHON_MODULE, "gunicorn"),
) -> Server:
    server = start({**environ, **certificate}, command)
    server.url = f"https://127.0.0.1:{server.port}"

    def is_ready() -> bool:
        try:
            return get(server, certificate, "/").status_code == 200
        except requests.RequestException:
            return False

    wait_until(is_ready, f"the server is ready:\n{server.text()}")
    return server


def get(server: Server, certificate: dict[str, str], path: str) -> requests.Response:
    return requests.get(server.url + path, verify=certificate["GREENROOM_TLS_CERTIFICATE"], timeout=30)


@pytest.fixture
def session(certificate: dict[str, str]) -> Iterator[requests.Session]:
    """Keeps its connection; trusts the certificate and nothing from the environment."""
    with requests.Session() as made:
        made.trust_env = False
        made.verify = certificate["GREENROOM_TLS_CERTIFICATE"]
        yield made


@pytest.fixture
def connect(certificate: dict[str, str]) -> Iterator[Callable[[Server], "HTTP2Client"]]:
    """`connect(server)` opens an HTTP/2 connection, which is closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(HTTP2Client(server.port, certificate["GREENROOM_TLS_CERTIFICATE"]))


class HTTP2Client:
    """A connection that opens streams and collects what each answers."""

    def __init__(self, port: int, certificate: str) -> None:
        context = ssl.create_default_context(cafile=certificate)
        context.set_alpn_protocols(["h2"])
        self.sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30), server_hostname="localhost")
        assert self.sock.selected_alpn_protocol() == "h2"
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.connection.initiate_connection()
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.is_told_to_go = False
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        self.sock.sendall(self.connection.data_to_send())

    def open(self, path: str, method: str = "GET", *, ends: bool = True) -> int:
        stream = int(self.connection.get_next_available_stream_id())
        head = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "localhost")]
        self.connection.send_headers(stream, head, end_stream=ends)
        self.bodies[stream] = b""
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, ends: bool) -> None:
        self.connection.send_data(stream, data, end_stream=ends)
        self.flush()

    def turn(self) -> bool:
        """Take what came; False when the server has closed."""
        data = self.sock.recv(65536)
        if not data:
            return False
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.heads[event.stream_id] = dict(event.headers or [])
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.is_told_to_go = True
        self.flush()
        return True

    def finish(self) -> None:
        while self.ended < set(self.bodies):
            assert self.turn(), "the server closed before all streams ended"


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls-apps")


def raw_tls(server: Server, certificate: dict[str, str]) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=certificate["GREENROOM_TLS_CERTIFICATE"])
    return context.wrap_socket(socket.create_connection(("127.0.0.1", server.port), 30), server_hostname="localhost")


def rest_of(sock: ssl.SSLSocket) -> bytes:
    answer = b""
    while data := sock.recv(65536):
        answer += data
    return answer


def tls_client(server: Server, certificate: dict[str, str]) -> Any:
    """An HTTP/1.1 connection that is closed at the end of the block."""
    context = ssl.create_default_context(cafile=certificate["GREENROOM_TLS_CERTIFICATE"])
    return closing(http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=context))


def status_of(client: http.client.HTTPSConnection) -> int:
    client.request("GET", "/")
    with client.getresponse() as answer:
        answer.read()
        return answer.status
