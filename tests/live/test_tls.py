"""TLS and HTTP/2 as processes serve them: isolated, bounded, streams side by side."""

import functools
import http.client
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import pytest
import requests

from .conftest import PYTHON_MODULE, Server, wait_until
from .test_drain import OURS, STOCK

Start = Callable[..., Server]
HTTP2 = (*PYTHON_MODULE, "gunicorn", "--http-protocols", "h2,h1")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate for localhost, as settings."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(pem)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return {"GREENROOM_TLS_CERTIFICATE": str(pem), "GREENROOM_TLS_KEY": str(key)}


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


def test_https_is_answered_again_and_again(share_tls: Start, session: requests.Session) -> None:
    server = share_tls()

    answers = [session.get(server.url + "/", timeout=30) for _ in range(3)]
    posted = session.post(server.url + "/echo", data=b"x" * 300_000, timeout=30)

    assert [answer.status_code for answer in answers] == [200] * 3
    assert posted.content == b"x" * 300_000


def test_a_client_that_does_not_speak_tls_is_let_go(start_tls: Start, certificate: dict[str, str]) -> None:
    server = start_tls({**OURS, "GREENROOM_TLS_HANDSHAKE_TIMEOUT_SECONDS": "1"})

    with socket.create_connection(("127.0.0.1", server.port), 10) as silent:
        began = time.monotonic()
        rest = silent.recv(100)
        took = time.monotonic() - began

    assert rest == b""
    assert 0.5 < took < 5.0
    assert get(server, certificate, "/").status_code == 200


def test_requests_of_one_connection_share_nothing(start_tls: Start, session: requests.Session, tmp_path: Path) -> None:
    (tmp_path / "marks.py").write_text(
        "import contextvars, threading\n"
        "context, local = contextvars.ContextVar('mark', default='none'), threading.local()\n"
        "def app(environ, start):\n"
        "    seen = f\"{context.get()} {getattr(local, 'mark', 'none')}\".encode()\n"
        "    context.set('set'); local.mark = 'set'\n"
        "    start('200 OK', [('Content-Length', str(len(seen)))])\n"
        "    return [seen]\n"
    )
    server = start_tls({**OURS, "PYTHONPATH": str(tmp_path), "WSGI_APP": "marks:app"})

    seen = [session.get(server.url + "/", timeout=30).content for _ in range(3)]

    assert seen == [b"none none"] * 3


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param(OURS, id="greenroom"),
        pytest.param(STOCK, id="gevent", marks=pytest.mark.xfail(strict=True, reason="one stream after the other")),
    ],
)
def test_four_streams_wait_at_the_same_time(
    share_tls: Start, connect: Callable[[Server], HTTP2Client], environ: dict[str, str]
) -> None:
    server = share_tls(environ, HTTP2)
    client = connect(server)

    began = time.monotonic()
    for _ in range(4):
        client.open("/sleep/2")
    client.finish()
    took = time.monotonic() - began

    assert all(body.isdigit() for body in client.bodies.values())
    assert took < 6.0, "one after the other they would take 8 s"


def test_bodies_and_long_answers_of_several_streams_do_not_mix(
    share_tls: Start, connect: Callable[[Server], HTTP2Client]
) -> None:
    """Longer than a flow-control window, and sent in turns."""
    server = share_tls(OURS, HTTP2)
    client = connect(server)

    echoes = {client.open("/echo", "POST", ends=False): letter for letter in (b"a", b"b", b"c")}
    large = [client.open("/large/400000") for _ in range(2)]
    for part in range(4):
        for stream, letter in echoes.items():
            client.send(stream, letter * 5000, ends=part == 3)
    client.finish()

    assert [client.bodies[stream] == letter * 20_000 for stream, letter in echoes.items()] == [True] * 3
    assert [len(client.bodies[stream]) for stream in large] == [400_000] * 2


def test_a_stop_answers_running_streams_and_says_goodbye(
    start_tls: Start, connect: Callable[[Server], HTTP2Client]
) -> None:
    server = start_tls(OURS, HTTP2)
    client = connect(server)
    stream = client.open("/sleep/1")
    time.sleep(0.3)

    began = time.monotonic()
    exit_code = server.stop()
    took = time.monotonic() - began
    client.finish()
    while client.turn():
        pass

    assert client.bodies[stream].isdigit()
    assert client.is_told_to_go
    assert exit_code == 0
    assert took < 15.0


def test_a_stop_with_idle_tls_connections_is_quick(start_tls: Start, session: requests.Session) -> None:
    server = start_tls({**OURS, "GREENROOM_KEEPALIVE_SECONDS": "60"})
    session.get(server.url + "/", timeout=30)

    began = time.monotonic()
    exit_code = server.stop()
    took = time.monotonic() - began

    assert exit_code == 0
    assert took < 15.0


FULL = {**OURS, "GREENROOM_LIMIT_REQUESTS": "1", "GREENROOM_QUEUE_LIMIT_REQUESTS": "0"}


def test_a_request_too_many_is_turned_away_and_keeps_its_connection(
    start_tls: Start, certificate: dict[str, str]
) -> None:
    server = start_tls(FULL)

    with tls_client(server, certificate) as busy, tls_client(server, certificate) as other:
        busy.request("GET", "/sleep/4")
        wait_until(lambda: status_of(other) == 503, "the slow request runs")
        answers = []
        for method, body in (("GET", None), ("HEAD", None), ("POST", b"x" * 5000), ("GET", None)):
            other.request(method, "/", body)
            answer = other.getresponse()
            answers.append((answer.status, answer.getheader("Retry-After"), answer.getheader("Connection")))
            answer.read()
        other.request("GET", "/healthz")
        with other.getresponse() as answer:
            health = answer.status
        with busy.getresponse() as answer:
            slept = answer.status

    assert answers == [(503, "1", "keep-alive")] * 4
    assert (health, slept) == (200, 200)
    assert server.text().count("requests turned away with 503") == 1


def test_a_stream_too_many_is_turned_away(start_tls: Start, connect: Callable[[Server], HTTP2Client]) -> None:
    server = start_tls(FULL, HTTP2)
    client = connect(server)

    slow = client.open("/sleep/3")
    shed = [client.open("/") for _ in range(2)]  # they come after it, on one connection
    health = client.open("/healthz")
    client.finish()

    assert [client.heads[stream][b":status"] for stream in (slow, health)] == [b"200", b"200"]
    assert [client.heads[stream][b":status"] for stream in shed] == [b"503", b"503"]
    assert [client.heads[stream][b"retry-after"] for stream in shed] == [b"1", b"1"]


SHORT_BODIES = {**OURS, "GREENROOM_BODY_TIMEOUT_SECONDS": "1", "GREENROOM_SEND_TIMEOUT_SECONDS": "1"}


def test_a_slow_body_is_a_line_in_the_log_and_a_408(share_tls: Start, certificate: dict[str, str]) -> None:
    server = share_tls(SHORT_BODIES)

    with tls_client(server, certificate) as client:
        client.putrequest("POST", "/echo")
        client.putheader("Content-Length", "10")
        client.endheaders(b"half")
        with client.getresponse() as answer:
            status = answer.status

    assert status == 408
    wait_until(lambda: "POST /echo: the rest of the body did not come in time" in server.text(), "there is a line")
    assert "Traceback" not in server.text()


def raw_tls(server: Server, certificate: dict[str, str]) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=certificate["GREENROOM_TLS_CERTIFICATE"])
    return context.wrap_socket(socket.create_connection(("127.0.0.1", server.port), 30), server_hostname="localhost")


def rest_of(sock: ssl.SSLSocket) -> bytes:
    answer = b""
    while data := sock.recv(65536):
        answer += data
    return answer


def test_half_a_head_is_a_408_and_an_idle_connection_is_closed(start_tls: Start, certificate: dict[str, str]) -> None:
    # If the other limit counted, nothing would come while this client waits.
    slow_head = start_tls({**OURS, "GREENROOM_HEAD_TIMEOUT_SECONDS": "1", "GREENROOM_KEEPALIVE_SECONDS": "3600"})
    idle = start_tls({**OURS, "GREENROOM_HEAD_TIMEOUT_SECONDS": "3600", "GREENROOM_KEEPALIVE_SECONDS": "1"})

    with raw_tls(slow_head, certificate) as sock, raw_tls(slow_head, certificate) as kept:
        sock.sendall(b"GET / HTTP/1.1\r\nHo")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        kept.recv(65536)
        kept.sendall(b"GET / HT")
        slow = [rest_of(sock), rest_of(kept)]
    with raw_tls(idle, certificate) as sock:
        silence = rest_of(sock)

    assert [b"HTTP/1.1 408 Request Timeout\r\n" in answer for answer in slow] == [True, True]
    assert silence == b""
    assert "Traceback" not in slow_head.text() + idle.text()


def test_a_body_that_only_drips_is_too_slow_as_well(share_tls: Start, certificate: dict[str, str]) -> None:
    server = share_tls(SHORT_BODIES)

    with raw_tls(server, certificate) as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        sock.settimeout(0.1)
        answer = b""
        for _ in range(1000):
            try:
                answer = sock.recv(65536)
                break
            except TimeoutError:
                sock.sendall(b"a")

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("fields", [b"", b"Host: a b\r\n"], ids=["no Host", "a wrong Host"])
def test_a_head_has_to_be_what_a_plain_one_has_to_be(
    share_tls: Start, certificate: dict[str, str], fields: bytes
) -> None:
    server = share_tls()

    with raw_tls(server, certificate) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n" + fields + b"\r\n")

        assert rest_of(sock).startswith(b"HTTP/1.1 400 ")


ERRORS = ["SystemExit", "GreenletExit", "Timeout", "OSError", "ValueError"]


@pytest.mark.parametrize("error", ERRORS)
def test_whatever_an_application_raises_is_a_500_with_a_log_line(
    share_tls: Start,
    connect: Callable[[Server], HTTP2Client],
    certificate: dict[str, str],
    shared_folder: Path,
    error: str,
) -> None:
    (shared_folder / "raises.py").write_text(
        "from gevent import GreenletExit, Timeout\n"
        f"ERRORS = [{', '.join(ERRORS)}]\n"
        "def app(environ, start):\n"
        "    if number := environ['PATH_INFO'].removeprefix('/'): raise ERRORS[int(number)]()\n"
        "    start('200 OK', [('Content-Length', '0')])\n"
        "    return []\n"
    )
    server = share_tls({**OURS, "PYTHONPATH": str(shared_folder), "WSGI_APP": "raises:app"}, HTTP2)
    client = connect(server)
    path = f"/{ERRORS.index(error)}"  # the name is not in the path: it has to be in the traceback

    stream = client.open(path)
    client.finish()
    over_http1 = get(server, certificate, path)
    with raw_tls(server, certificate) as sock:
        sock.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = rest_of(sock)

    assert client.heads[stream][b":status"] == b"500"
    assert over_http1.status_code == 500
    assert head.startswith(b"HTTP/1.1 500 ")
    assert head.endswith(b"\r\n\r\n")
    assert error in server.text()
    assert get(server, certificate, "/").status_code == 200


def test_the_uwsgi_protocol_is_refused_at_the_start_with_a_sentence(start: Start) -> None:
    server = start(OURS, (*PYTHON_MODULE, "gunicorn", "--protocol", "uwsgi"))

    assert server.wait_gone() == 1
    assert "let nginx use proxy_pass in place of uwsgi_pass" in server.text()
    assert "Traceback" not in server.text()


def tls_client(server: Server, certificate: dict[str, str]) -> Any:
    """An HTTP/1.1 connection that is closed at the end of the block."""
    context = ssl.create_default_context(cafile=certificate["GREENROOM_TLS_CERTIFICATE"])
    return closing(http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=context))


def status_of(client: http.client.HTTPSConnection) -> int:
    client.request("GET", "/")
    with client.getresponse() as answer:
        answer.read()
        return answer.status


LEAVING = """
import os, time


def mark(name):
    open(os.path.join(os.environ["MARKS"], name), "w").close()


def app(environ, start):
    what = environ["PATH_INFO"].strip("/")
    if what == "events":
        start("200 OK", [("Content-Type", "text/event-stream")])
        return events()
    if what:
        mark("begun")
        try:
            time.sleep(120)
        finally:
            mark("ended")
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def events():
    yield b"data: 1\\n\\n"
    mark("begun")
    try:
        time.sleep(120)
    finally:
        mark("ended")
"""


@pytest.mark.parametrize("path", ["/wait", "/events"])
@pytest.mark.parametrize("how", ["HTTP/1.1", "a stream", "a connection"])
def test_a_client_that_hangs_up_ends_its_request(
    how: str,
    path: str,
    share_tls: Start,
    certificate: dict[str, str],
    connect: Callable[[Server], HTTP2Client],
    shared_folder: Path,
) -> None:
    (shared_folder / "leaving.py").write_text(LEAVING)
    environ = {"WSGI_APP": "leaving:app", "PYTHONPATH": str(shared_folder), "MARKS": str(shared_folder)}
    server = share_tls({**OURS, **environ, "GREENROOM_REQUEST_BUDGET_MILLISECONDS": "0"}, HTTP2)
    begun, ended = shared_folder / "begun", shared_folder / "ended"
    begun.unlink(missing_ok=True)
    ended.unlink(missing_ok=True)

    if how == "HTTP/1.1":
        sock = raw_tls(server, certificate)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(begun.exists, "it runs")
        sock.close()
    else:
        client = connect(server)
        stream, other = client.open(path), client.open("/")
        wait_until(begun.exists, "it runs")
        if how == "a stream":
            client.connection.reset_stream(stream)
            client.flush()
        else:
            client.sock.close()

    wait_until(ended.exists, f"the request is over:\n{server.text()}")
    if how == "a stream":
        while other not in client.ended:
            assert client.turn()
        assert client.bodies[other] == b"ok"
    assert "Traceback" not in server.text()


def test_a_client_that_has_sent_more_and_ends_its_side_is_answered(
    share_tls: Start, certificate: dict[str, str]
) -> None:
    server = share_tls()
    with raw_tls(server, certificate) as client:
        client.sendall(b"GET /sleep/1 HTTP/1.1\r\nHost: x\r\n\r\nGET /large/7 HTTP/1.1\r\nHost: x\r\n\r\n")
        socket.socket.shutdown(client, socket.SHUT_WR)
        answers = b""
        with suppress(ssl.SSLError):  # ending like this is not TLS's way, and the server's TLS says so at last
            while data := client.recv(65536):
                answers += data

    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.endswith(b"xxxxxxx")


def test_a_budget_that_ends_in_line_is_504_over_tls(start_tls: Start, certificate: dict[str, str]) -> None:
    server = start_tls({**OURS, "GREENROOM_LIMIT_REQUESTS": "1", "GREENROOM_ROUTE_BUDGETS": "/in-line=700"})
    statuses: list[int] = []

    def waits_in_line() -> bool:
        with tls_client(server, certificate) as other:
            other.request("GET", "/in-line")
            with other.getresponse() as answer:
                statuses.append(answer.status)
        return statuses[-1] == 504

    with tls_client(server, certificate) as busy:
        busy.request("GET", "/sleep/8")
        wait_until(waits_in_line, "the slow request runs, and another one waits until its budget is over", 7)
        with busy.getresponse() as answer:
            slept = answer.status

    assert slept == 200


# --- requests that end before their application has answered

STUCK = {**OURS, "WSGI_APP": "sockets:app", "GREENROOM_REQUEST_BUDGET_MILLISECONDS": "500"}


def test_client_is_answered_at_the_deadline_though_the_application_is_stuck(
    start_tls: Start, certificate: dict[str, str]
) -> None:
    server = start_tls(STUCK)

    answer = get(server, certificate, "/stuck")
    posted = requests.post(
        server.url + "/stuck", b"x" * 3_000_000, verify=certificate["GREENROOM_TLS_CERTIFICATE"], timeout=30
    )
    get(server, certificate, "/free")
    server.stop()

    assert (answer.status_code, answer.headers["Connection"]) == (504, "close")
    assert posted.status_code == 504
    assert server.text().count("GET /stuck: the request's budget of 0.5 s is spent") == 1
    assert "Traceback" not in server.text()


def test_stream_is_answered_at_the_deadline_and_its_connection_stays(
    start_tls: Start, connect: Callable[[Server], HTTP2Client]
) -> None:
    server = start_tls(STUCK, HTTP2)
    client = connect(server)

    stuck = [client.open("/stuck"), client.open("/stuck", "HEAD"), client.open("/stuck", "POST", ends=False)]
    client.finish()
    other = client.open("/free")
    client.finish()
    again = client.open("/")
    client.finish()
    server.stop()

    assert [client.heads[stream][b":status"] for stream in stuck] == [b"504"] * 3
    assert client.bodies[stuck[1]] == b""
    assert client.heads[other][b":status"] == client.heads[again][b":status"] == b"200"
    assert "Traceback" not in server.text()
    assert server.text().count("/stuck: the request's budget of 0.5 s is spent") == 3


def test_stop_answers_503_over_tls_and_is_bounded(start_tls: Start, certificate: dict[str, str]) -> None:
    server = start_tls(
        {**STUCK, "GREENROOM_REQUEST_BUDGET_MILLISECONDS": "0", "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "4"}
    )
    context = ssl.create_default_context(cafile=certificate["GREENROOM_TLS_CERTIFICATE"])
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", server.port), 30), server_hostname="localhost"
    ) as sock:
        sock.sendall(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
        get(server, certificate, "/")  # the other one runs by now
        server.signal(15)
        answer = sock.recv(65536)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert server.wait_gone() == 0
    assert "Traceback" not in server.text()


def test_async_view_gets_a_body_that_comes_late_over_tls_and_http2(
    start_tls: Start, certificate: dict[str, str], connect: Callable[[Server], HTTP2Client]
) -> None:
    apps = {"PYTHONPATH": str(Path(__file__).parent / "apps"), "WSGI_APP": "coroutines:app", "WEB_CONCURRENCY": "1"}
    server = start_tls(apps, HTTP2)
    client = connect(server)
    streams = [client.open(path, "POST", ends=False) for path in ("/body", "/body-in-a-thread")]
    for stream in streams:
        client.send(stream, b"01234", ends=False)
    assert get(server, certificate, "/view/10").status_code == 200
    for stream in streams:
        client.send(stream, b"56789", ends=True)
    client.finish()

    assert [client.heads[stream][b":status"] for stream in streams] == [b"200", b"200"]
    assert all(b'"length":10' in client.bodies[stream].replace(b" ", b"") for stream in streams)

    context = ssl.create_default_context(cafile=certificate["GREENROOM_TLS_CERTIFICATE"])
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", server.port), 30), server_hostname="localhost"
    ) as one:
        one.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n01234")
        assert get(server, certificate, "/view/10").status_code == 200
        one.sendall(b"56789")
        assert one.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_breaks_an_http2_connection_leaves_no_traceback(
    start_tls: Start, connect: Callable[[Server], HTTP2Client]
) -> None:
    server = start_tls(OURS, HTTP2)
    for path in ("/large/4000000", "/sleep/1"):
        client = connect(server)
        client.open(path)
        client.open("/echo", "POST", ends=False)
        client.turn()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()

    assert server.stop() == 0
    assert "Traceback" not in server.text()
