"""A connection from its first byte to its last: what is answered, what is kept, what is closed, and when."""

import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest
from gunicorn.http.message import Request

from greenroom.worker.connection import State
from greenroom.worker.timeouts import LINGER_SECONDS

from .harness import CONTINUE, Ours, Site, Stock, serve, turn, wait_until, without_date

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
BOTH = pytest.mark.parametrize("kind", [Ours, Stock], ids=lambda kind: kind.name)


class App:
    """Answers with its path and what it read; the path says how it reads, and `release` lets /wait go on."""

    def __init__(self) -> None:
        self.release = gevent.event.Event()
        self.running = 0
        self.paths: list[str] = []
        self.errors: list[BaseException] = []
        self.gone: list[bool] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        self.paths.append(path)
        self.running += 1
        try:
            if path == "/wait":
                self.release.wait()
                self.gone.append(
                    environ["greenroom.is_client_gone"]() if "greenroom.is_client_gone" in environ else False
                )
            body = environ["wsgi.input"].read(0 if path == "/ignore" else 3 if path == "/some" else -1)
        except BaseException as exc:
            self.errors.append(exc)
            raise
        finally:
            self.running -= 1
        text = path.encode() + b":" + body
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text]


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def ours(app: App) -> Iterator[Site]:
    with serve(Ours, app) as site:
        yield site


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


# --- 100 Continue


EXPECTING = POST % 5 + b"Expect: 100-continue\r\n\r\n"


def test_continue_is_sent_when_the_application_asks_for_the_body(ours: Site, app: App) -> None:
    with ours.connect() as client:
        client.send(EXPECTING)
        assert client.until(b"\r\n\r\n") == CONTINUE
        client.send(b"abcde" + GET % 1)

        assert client.answer().body == b"/read:abcde"
        assert client.answer().body == b"/1:"


def test_continue_is_not_sent_by_an_application_that_does_not_read(ours: Site, app: App) -> None:
    with ours.connect() as client:
        client.send(EXPECTING.replace(b"/read", b"/ignore"))

        answer = client.rest()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n/ignore:")


@pytest.mark.parametrize("data", [EXPECTING + b"abcde", EXPECTING.replace(b"5", b"0"), EXPECTING + b"ab"])
def test_continue_is_not_sent_to_who_did_not_wait(ours: Site, data: bytes) -> None:
    with ours.connect() as client:
        client.send(data)
        turn(5)
        client.send(b"cde" if data.endswith(b"ab") else b"")
        client.send(GET % 1)

        assert client.until(b"/read:").startswith(b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\n")
        assert client.until(b"/1:")


def test_continue_is_never_sent_after_the_answer_began(ours: Site) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        yield environ["wsgi.input"].read()

    ours.kind.worker.wsgi = application
    with ours.connect() as client:
        client.send(EXPECTING)
        client.until(b"first\r\n")
        client.send(b"abcde")
        answer = client.rest()

    assert CONTINUE not in answer
    assert b"abcde" in answer


def test_other_expectations_are_refused(ours: Site) -> None:
    assert ours.ask(b"GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n").startswith(b"HTTP/1.1 417 ")


# --- bodies


@BOTH
def test_unread_body_is_discarded_and_the_connection_kept(kind: Any, app: App) -> None:
    with serve(kind, app) as site, site.connect() as client:
        client.send(POST.replace(b"read", b"some") % 50_000 + b"\r\n" + b"a" * 50_000 + GET % 1)

        assert client.answer().body == b"/some:aaa"
        assert client.answer().body == b"/1:"


def test_large_unread_body_ends_the_connection_without_losing_the_answer(ours: Site) -> None:
    with ours.connect() as client:
        client.send(POST.replace(b"read", b"some") % 50_000_000 + b"\r\n")
        for _ in range(40):
            client.send(b"a" * 100_000)

        assert client.answer().body == b"/some:aaa"


def test_body_that_an_application_replaced_in_the_environ_is_still_discarded(ours: Site) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"] = None
        start_response("204 No Content", [])
        return []

    ours.kind.worker.wsgi = application

    assert ours.ask(POST % 5 + b"\r\nabcde" + GET % 1).count(b"204 No Content") == 2


def test_body_cut_short_is_an_error_and_not_a_short_body(ours: Site, app: App) -> None:
    answer = ours.ask(POST % 5 + b"\r\nab")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert isinstance(app.errors[0], OSError)
    assert ours.records.at(logging.ERROR) == []


def test_slow_body_ends_in_408(app: App) -> None:
    with serve(Ours, app, settings={"body_timeout_seconds": 1}) as site, site.connect() as client:
        client.send(POST % 5 + b"\r\nab")

        answer = client.rest()

    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert app.running == 0
    assert isinstance(app.errors[0], TimeoutError)


def test_body_that_only_drips_is_too_slow_as_well(app: App) -> None:
    with serve(Ours, app, settings={"body_timeout_seconds": 1}) as site, site.connect() as client:
        client.send(POST % 1000 + b"\r\n")
        began = time.monotonic()
        while app.errors == [] and time.monotonic() < began + 10:
            client.send(b"a")
            gevent.sleep(0.1)

        assert client.rest().startswith(b"HTTP/1.1 408 ")


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


# --- heads that come in pieces


class Drip:
    """A socket from which data comes in small pieces."""

    def __init__(self, data: bytes, size: int) -> None:
        self.pieces = (data[at : at + size] for at in range(0, len(data), size))

    def recv(self, size: int) -> bytes:
        return next(self.pieces)


HEAD_700_KB = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 8000) for n in range(88))


@pytest.mark.parametrize("cfg", [{}, {"proxy_protocol": "auto"}], ids=["plain", "PROXY"])
def test_long_head_is_not_read_anew_for_each_piece(
    app: App, monkeypatch: pytest.MonkeyPatch, cfg: dict[str, Any]
) -> None:
    judged = []

    class Counted(Request):  # type: ignore[misc]
        def __init__(self, cfg: Any, unreader: Any, *args: Any) -> None:
            judged.append(unreader.buf.getbuffer().nbytes)
            super().__init__(cfg, unreader, *args)

    monkeypatch.setattr("greenroom.worker.connection.Request", Counted)
    with serve(Ours, app, cfg=cfg) as site, site.connect() as client:
        client.send(HEAD_700_KB[:5000])
        wait_until(lambda: judged, "it has begun")
        turn()
        [connection] = site.kind.serving.connections
        plain, connection.wire.sock = connection.wire.sock, Drip(HEAD_700_KB[5000:], 3)
        for _ in range(5000, len(HEAD_700_KB), 3):
            connection.on_readable()
            assert sum(judged) < 2 * len(HEAD_700_KB)
        connection.wire.sock = plain

        client.send(b"\r\n")
        assert client.answer().status == 200


def test_long_head_is_refused_when_it_is_too_long_and_not_later(ours: Site) -> None:
    with ours.connect() as client:
        client.send(HEAD_700_KB)
        wait_until(lambda: len(next(iter(ours.kind.serving.connections)).buffer) == len(HEAD_700_KB), "it is read")
        limit = ours.kind.serving.parser.longest_head_bytes
        client.send(b"X: " + b"y" * (limit - len(HEAD_700_KB) + 100))

        assert client.rest().startswith(b"HTTP/1.1 431 ")


def test_line_without_cr_is_refused_at_once_wherever_it_is(ours: Site) -> None:
    with ours.connect() as client:
        client.send(HEAD_700_KB)
        wait_until(lambda: len(next(iter(ours.kind.serving.connections)).buffer) == len(HEAD_700_KB), "it is read")
        for piece in (b"A", b": b\r", b"\nC: d", b"\n"):
            client.send(piece)
            turn()

        assert client.rest().startswith(b"HTTP/1.1 400 ")


# --- time and room


def test_slow_head_ends_in_408(app: App) -> None:
    with serve(Ours, app, settings={"head_timeout_seconds": 1}) as site, site.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost:")

        answer = client.rest()

    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"Connection: close\r\n" in answer
    assert app.paths == []


def test_idle_connection_is_closed_after_keepalive_without_a_word(app: App) -> None:
    with serve(Ours, app, settings={"keepalive_seconds": 1}) as site:
        with site.connect() as never, site.connect() as once, site.connect() as empty:
            once.send(GET % 1)
            once.answer()
            empty.send(b"\r\n")

            assert (never.rest(), once.rest(), empty.rest()) == (b"", b"", b"")


def test_gunicorns_own_settings_count_where_its_command_line_changed_them(app: App) -> None:
    cfg = {"keepalive": 1, "worker_connections": 1}
    with serve(Ours, app, cfg=cfg, settings={"keepalive_seconds": 3600, "worker_connections": 500}) as site:
        with site.connect() as client, site.connect():
            assert client.rest() == b""  # it made room
        with site.connect() as client:
            assert client.rest() == b""  # its time was up


def test_new_client_has_time_to_ask_where_no_connection_is_kept(app: App) -> None:
    with serve(Ours, app, cfg={"keepalive": 0}) as site, site.connect() as client:
        turn()
        site.kind.serving.timeouts.sweep()
        client.send(GET % 1)

        assert client.answer().header("Connection") == "close"
        assert client.rest() == b""


@pytest.mark.parametrize("first", [b"", GET % 1, (GET % 1)[:20]], ids=["new", "kept", "half a head"])
def test_request_that_came_while_the_loop_stood_still_is_served(app: App, first: bytes) -> None:
    limits = {"keepalive_seconds": 1, "head_timeout_seconds": 1}
    with serve(Ours, app, settings=limits) as site, site.connect() as client:
        client.send(first)
        turn(5)
        if first == GET % 1:
            client.answer()
        time.sleep(1.5)  # the whole process: a view that computes, say
        client.send((GET % 1)[20:] if first == (GET % 1)[:20] else GET % 1)

        assert client.answer().body == b"/1:"


def test_new_client_takes_the_place_of_the_one_idle_longest(app: App) -> None:
    with serve(Ours, app, settings={"worker_connections": 3}) as site, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(site.connect()) for _ in range(3)]
        for client in idle:
            client.send(GET % 1)
            client.answer()

        new = stack.enter_context(site.connect())
        new.send(GET % 2)

        assert new.answer().body == b"/2:"
        assert [client.is_open() for client in idle] == [False, True, True]


def test_new_client_takes_the_place_of_the_slowest_head(app: App) -> None:
    with serve(Ours, app, settings={"worker_connections": 3}) as site, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(site.connect()) for _ in range(3)]
        for client in slow:
            client.send(b"GET / HT")
            turn(5)

        new = stack.enter_context(site.connect())
        new.send(GET % 2)

        assert new.answer().body == b"/2:"
        assert slow[0].rest().startswith(b"HTTP/1.1 408 ")
        assert slow[1].is_open()


def test_new_client_waits_while_all_are_busy(app: App) -> None:
    settings = {"worker_connections": 2, "limit_requests": 100}
    with serve(Ours, app, settings=settings) as site, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(site.connect()) for _ in range(2)]
        for client in busy:
            client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: app.running == 2, "both run")
        new = stack.enter_context(site.connect())
        new.send(GET % 1)
        gevent.sleep(0.02)
        assert app.paths == ["/wait", "/wait"]
        app.release.set()

        assert new.answer().body == b"/1:"
        assert len(site.kind.serving.connections) <= 2


def test_thousand_slow_heads_change_nothing_for_the_others(app: App) -> None:
    with serve(Ours, app, settings={"worker_connections": 500}) as site, contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(site.connect()).send(b"GET / HTTP/1.1\r\nX")
        turn(5)
        with site.connect() as client:
            for _ in range(100):
                client.send(GET % 1)
                assert client.answer().status == 200
        with contextlib.ExitStack() as others:
            clients = [others.enter_context(site.connect()) for _ in range(50)]
            for client in clients:
                client.send(GET % 2)
            assert [client.answer().status for client in clients] == [200] * 50

        assert len(site.kind.serving.connections) <= 501
        assert app.running == 0


def test_clients_that_pipeline_do_not_let_in_more_than_may_be_open() -> None:
    """Between two of its requests such a connection can't be closed, and so makes no room for another."""
    most_open = 0

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        nonlocal most_open
        most_open = max(most_open, len(site.kind.serving.connections))
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with serve(Ours, application, settings={"worker_connections": 3}) as site, contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(site.connect()) for _ in range(3)]
        for client in greedy:
            client.send(GET % 1 * 1000)
        wait_until(lambda: most_open == 3, "they are served")
        for _ in range(50):
            stack.enter_context(site.connect()).send(GET % 2)
            turn()
        for client in greedy:
            client.end()
            assert client.rest().startswith(b"HTTP/1.1 200 OK")

    assert most_open == 3


def test_refused_client_that_goes_on_sending_is_let_go(app: App) -> None:
    with serve(Ours, app) as site, site.connect() as client:
        client.send(b"NONSENSE\r\n\r\n")
        client.until(b"</html>\n")
        lingering = site.kind.serving.timeouts.lingering
        assert len(lingering) == 1
        assert not site.kind.serving.connections

        began = time.monotonic()
        while lingering and time.monotonic() < began + LINGER_SECONDS + 5:
            client.send(b"x" * 1000)
            gevent.sleep(0.05)

        assert not lingering


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
