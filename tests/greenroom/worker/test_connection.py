"""A connection from its first byte to its last: what is answered, what is kept, what is closed, and when."""

import contextlib
import logging
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenroom.worker.connection import State

from .harness import BOTH, Ours, Site, Stock, serve, turn, wait_until, without_date
from .reading import GET, POST, App

REQUESTS = {
    "a plain one": b"GET /a%20b?q HTTP/1.1\r\nHost: x\r\nX-A: b\r\n\r\n",
    "one with a length": POST % 5 + b"\r\nabcde",
    "one in chunks": b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3;a="b"\r\nabc\r\n00a\r\n0123456789\r\n0\r\nX-T: y\r\n\r\n',
    "one of HTTP/1.0": b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "one after an empty line": b"\r\n" + GET % 1,
    "one with an absolute target": b"GET http://h/p HTTP/1.1\r\nHost: x\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("data", REQUESTS.values(), ids=REQUESTS)
def test_request_split_at_every_byte_is_answered_the_same(ours: Site, data: bytes) -> None:
    data += GET % 2  # the next one in the same packet
    whole = without_date(ours.ask(data))

    answers = {without_date(ours.ask(data[:cut], data[cut:])) for cut in range(1, len(data))}

    assert answers == {whole}
    assert whole.count(b"200 OK") == 2


@pytest.mark.parametrize("data", REQUESTS.values(), ids=REQUESTS)
def test_request_byte_by_byte_is_answered_the_same(ours: Site, data: bytes) -> None:
    whole = without_date(ours.ask(data))

    assert without_date(ours.ask(*(bytes([byte]) for byte in data))) == whole


@BOTH
def test_pipelined_requests_are_answered_in_order(kind: Any, app: App) -> None:
    with serve(kind, app) as site:
        answer = site.ask(b"".join(GET % number for number in range(200)))

    assert [int(part.split(b":")[0]) for part in answer.split(b"\r\n\r\n/")[1:]] == list(range(200))


def test_requests_that_come_together_are_all_read_before_any_runs() -> None:
    states: list[list[State]] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        states.append([connection.state for connection in site.kind.serving.connections])
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with serve(Ours, application) as site, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(site.connect()) for _ in range(5)]
        wait_until(lambda: len(site.kind.serving.connections) == 5, "all are connected")
        for client in clients:
            client.sock.send(GET % 1)  # which the kernel takes without a turn of the loop

        assert [client.answer().body for client in clients] == [b"ok"] * 5

    assert states[0].count(State.RUNNING) == 1
    assert states[0].count(State.WAITING) == 4


def test_a_client_that_pipelines_does_not_hold_the_loop(ours: Site) -> None:
    with ours.connect() as greedy, ours.connect() as modest:
        greedy.send(b"".join(GET % number for number in range(500)))
        modest.send(GET % 1)
        modest.answer()

        served = len(ours.kind.worker.wsgi.paths)

    assert served < 500


@BOTH
def test_client_that_ended_its_side_gets_all_its_answers(kind: Any, app: App) -> None:
    with serve(kind, app) as site, site.connect() as client:
        client.send(GET % 1 + b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + GET % 3)
        client.end()
        wait_until(lambda: app.running, "the second request runs")
        app.release.set()

        answer = client.rest()

    assert answer.count(b"200 OK") == 3


@BOTH
def test_client_that_ended_its_side_gets_the_answers_to_all_its_packets(kind: Any, app: App) -> None:
    with serve(kind, app) as site, site.connect() as client:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: app.running, "the first request runs")
        client.send(GET % 2)
        turn()
        client.send(POST % 5 + b"\r\nabcde" + b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        client.end()
        turn()
        if kind is Ours:
            site.kind.serving.timeouts.sweep()  # which finds that the client has ended its side
        app.release.set()

        answer = client.rest()

    assert answer.count(b"200 OK") == 4
    assert b"/read:abcde" in answer


KEPT = {
    "HTTP/1.1": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
    "HTTP/1.1, close": (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
    "HTTP/1.1, Close": (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n", False),
    "HTTP/1.1, keep-alive": (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", True),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", False),
    "HTTP/1.0, keep-alive": (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    "HTTP/1.0, close": (b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n", False),
    "CONNECT": (b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", False),
}


@BOTH
@pytest.mark.parametrize(("data", "is_kept"), KEPT.values(), ids=KEPT)
def test_connection_is_kept_as_http_says(kind: Any, app: App, data: bytes, is_kept: bool) -> None:
    with serve(kind, app) as site, site.connect() as client:
        client.send(data)
        answer = client.answer()

        assert answer.header("Connection") == ("keep-alive" if is_kept else "close")
        assert client.is_open() is is_kept


@pytest.mark.parametrize("options", [b"TE, close", b"close, TE", b"x ,\tCLOSE"])
def test_close_counts_anywhere_in_the_list(ours: Site, options: bytes) -> None:
    with ours.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: " + options + b"\r\n\r\n")

        assert client.answer().header("Connection") == "close"
        assert client.rest() == b""


def test_an_absolute_target_names_the_host(ours: Site) -> None:
    hosts = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        hosts.append((environ["HTTP_HOST"], environ["PATH_INFO"], environ["RAW_URI"]))
        start_response("204 No Content", [])
        return []

    ours.kind.worker.wsgi = application
    ours.ask(b"GET http://right:81/p HTTP/1.1\r\nHost: wrong\r\n\r\n")

    assert hosts == [("right:81", "/p", "http://right:81/p")]


# --- the client leaves


def test_client_that_leaves_during_a_request_is_noticed(ours: Site, app: App) -> None:
    left = []
    ours.kind.serving.client_left = lambda one, **_: left.append(one)
    with ours.connect() as client:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: app.running, "the request runs")

    wait_until(lambda: left, "the client's leaving is noticed")
    app.release.set()
    wait_until(lambda: app.gone, "the application was told")
    assert app.gone == [True]


def test_client_that_leaves_after_its_body_is_noticed(ours: Site, app: App) -> None:
    left = []
    ours.kind.serving.client_left = lambda one, **_: left.append(one)

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read()
        app.running += 1
        app.release.wait()
        start_response("204 No Content", [])
        return []

    ours.kind.worker.wsgi = application
    with ours.connect() as client:
        client.send(POST % 5 + b"\r\n")
        turn()
        client.send(b"abcde")
        wait_until(lambda: app.running, "the request runs")

    wait_until(lambda: left, "the client's leaving is noticed")
    app.release.set()


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux can tell")
def test_client_that_leaves_behind_unread_bytes_is_noticed(ours: Site, app: App) -> None:
    with ours.connect() as client:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: app.running, "the request runs")
        client.send(GET % 1)
        turn()

    (connection,) = ours.kind.serving.connections
    wait_until(lambda: connection.is_client_gone, "the client's leaving is noticed")
    app.release.set()
    wait_until(lambda: app.gone, "the application was told")
    assert app.gone == [True]


def test_client_that_stays_is_not_gone(ours: Site, app: App) -> None:
    with ours.connect() as client:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: app.running, "the request runs")
        app.release.set()
        client.answer()

    assert app.gone == [False]


def test_everything_is_let_go_when_clients_reset(ours: Site, app: App) -> None:
    for data in (b"", b"GET", GET % 1, POST % 5 + b"\r\nab"):
        client = ours.connect()
        client.send(data)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        turn()
        client.sock.close()

    serving = ours.kind.serving
    wait_until(lambda: not serving.connections and not serving.in_flight, "nothing is left")
    assert [*serving.timeouts.idle, *serving.timeouts.reading, *serving.timeouts.lingering] == []


BIG = b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_last_answer_is_whole_when_the_next_request_comes_while_it_is_sent(ours: Site) -> None:
    body = b"x" * 8_000_000

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    ours.kind.worker.wsgi = application
    with ours.connect() as client:
        client.send(BIG)
        client.buffer = client.sock.recv(1000)
        client.send(GET % 2)
        turn()  # it is seen, and that nobody will read it
        answer = client.rest()

    assert len(answer) > len(body)
    assert not answer.endswith(b"<reset>")


@pytest.mark.parametrize("is_ended", [False, True], ids=["open", "ended"])
def test_last_answer_is_whole_when_the_next_request_comes_at_its_end(ours: Site, app: App, is_ended: bool) -> None:
    with ours.connect() as client:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until(lambda: app.running, "the request runs")
        app.release.set()
        client.sock.send(GET % 2)  # which the kernel takes without a turn of the loop: the answer's end comes first
        if is_ended:
            client.end()
        answer = client.rest()

    assert answer.endswith(b"/wait:")


# --- the socket itself


def test_application_can_take_the_socket(ours: Site) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sock = environ["gunicorn.socket"]
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        sock.sendall(sock.recv(100).upper())
        raise StopIteration

    ours.kind.worker.wsgi = application
    with ours.connect() as client:
        client.send(GET % 1)
        client.until(b"\r\n\r\n")
        client.send(b"hello")

        assert client.rest() == b"HELLO"
    assert ours.records.at(logging.WARNING) == []


def test_unix_socket_has_the_environ_that_gunicorn_gives(app: App, tmp_path: Path) -> None:
    environs = []
    for kind in (Ours, Stock):
        seen: list[dict[str, Any]] = []

        def application(environ: dict[str, Any], start_response: Any, seen: list[Any] = seen) -> list[bytes]:
            seen.append({key: value for key, value in environ.items() if isinstance(value, str)})
            start_response("204 No Content", [])
            return []

        address = str(tmp_path / kind.name)
        with serve(kind, application, family=socket.AF_UNIX, address=address) as site:
            site.ask(
                b"GET /a?b HTTP/1.1\r\nHost: h:81\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n"
            )
        environs.append(seen)

    assert environs[0] == environs[1]
    assert [(seen["SERVER_NAME"], seen["SERVER_PORT"]) for seen in environs[0]] == [("h", "81"), ("h", "443")]


def test_ipv6_client_has_the_environ_that_gunicorn_gives() -> None:
    environs = []
    for kind in (Ours, Stock):

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            environs.append((environ["REMOTE_ADDR"], environ["SERVER_NAME"], environ["REMOTE_PORT"].isdigit()))
            start_response("204 No Content", [])
            return []

        with serve(kind, application, family=socket.AF_INET6, address=("::1", 0)) as site:
            site.ask(GET % 1)

    assert environs == [("::1", "::1", True)] * 2
