"""Limits of time and room: heads that come in pieces or slowly, idle connections, and clients that find no place."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import pytest
from gunicorn.http.message import Request

from greenroom.worker.timeouts import LINGER_SECONDS

from .harness import Ours, Site, serve, turn, wait_until
from .reading import GET, App

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
