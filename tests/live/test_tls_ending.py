"""Requests over TLS and HTTP/2 that end before they are answered: the client leaves, the budget is spent, a stop."""

import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from .conftest import Server, wait_until
from .test_drain import OURS
from .tls import HTTP2, HTTP2Client, Start, connect, get, raw_tls, share_tls, shared_folder, start_tls, tls_client

__all__ = ["connect", "share_tls", "shared_folder", "start_tls"]


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
