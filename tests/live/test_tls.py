"""TLS and HTTP/2 as processes serve them: isolated, bounded, streams side by side."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from .conftest import PYTHON_MODULE, Server, wait_until
from .test_drain import OURS, STOCK
from .tls import (
    HTTP2,
    HTTP2Client,
    Start,
    connect,
    get,
    raw_tls,
    rest_of,
    session,
    share_tls,
    shared_folder,
    start_tls,
    status_of,
    tls_client,
)

__all__ = ["connect", "session", "share_tls", "shared_folder", "start_tls"]


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
