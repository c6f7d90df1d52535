"""Connections and streams of requests that end before their application has answered."""

import logging
import socket
from collections.abc import Iterable
from typing import Any

import gevent
import pytest
from gevent.event import Event

from greenroom import deadline
from greenroom.in_flight import OWN, Wait

from .harness import Answer, Ours, serve, wait_until
from .slow import GET, Slow, simple


def test_old_client_is_answered_and_its_connection_closed() -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET.replace(b"HTTP/1.1", b"HTTP/1.0"))
        data = client.rest()
        app.finish()

    assert b" 504 Gateway Timeout\r\n" in data


def test_requests_pipelined_behind_it_are_not_served() -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET + b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        data = client.rest()
        app.finish()

        assert data.count(b"HTTP/1.1 ") == 1
        assert data.startswith(b"HTTP/1.1 504 ")
        assert site.kind.worker.nr == 1


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 1000\r\n", b"some"),
        (b"Content-Length: 100000000\r\n", b"x" * 1_000_000),
        (b"Transfer-Encoding: chunked\r\n", b"4\r\nsome\r\n"),
        (b"Content-Length: 1000\r\nExpect: 100-continue\r\n", b""),
    ],
)
def test_client_that_still_sends_its_body_can_read_the_answer(head: bytes, body: bytes) -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\n" + head + b"\r\n") + body)
        sender = gevent.spawn(client.send, b"x" * 5_000_000)
        answer = client.answer()
        sender.kill()
        app.finish()

        assert (answer.status, answer.header("Connection")) == (504, "close")
        assert app.error is None


def test_answer_that_the_kernel_takes_in_part_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET)
        wait_until(lambda: site.kind.serving.in_flight, "it runs")
        (connection,) = site.kind.serving.connections
        monkeypatch.setattr(
            type(connection.wire), "try_send", lambda wire, data: wire.sock.send(data[:10]) == len(data)
        )
        data = client.rest()
        app.finish()

    assert data in (b"HTTP/1.1 5<reset>", b"<reset>")


def test_503_that_the_kernel_takes_in_part_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Slow(simple)
    settings = {"limit_requests": 1, "queue_limit_requests": 0}
    with serve(Ours, app, settings=settings) as site, site.connect() as first, site.connect() as client:
        first.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: site.kind.serving.in_flight, "it runs")
        (connection,) = site.kind.serving.connections - {next(iter(site.kind.serving.in_flight))} or [None]
        monkeypatch.setattr(
            type(connection.wire), "try_send", lambda wire, data: wire.sock.send(data[:10]) == len(data)
        )
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        data = client.rest()
        app.finish()

    assert data == b"HTTP/1.1 5"


def test_stream_that_has_begun_is_left_alone() -> None:
    goes_on = Event()

    def stream(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        with deadline.unbounded():
            goes_on.wait()
        yield b"second"

    with serve(Ours, stream) as site, site.connect() as client:
        client.send(GET)
        client.until(b"first\r\n")
        gevent.sleep(0.1)  # its budget passes
        goes_on.set()
        assert client.until(b"0\r\n\r\n").endswith(b"6\r\nsecond\r\n0\r\n\r\n")


def test_stream_of_events_has_no_budget_from_its_content_type_on() -> None:
    def events(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        with Wait("sleep", "", OWN):
            gevent.sleep(0.2)  # its budget passes
        yield b"first"

    with serve(Ours, events) as site, site.connect() as client:
        client.send(GET)

        assert client.until(b"0\r\n\r\n").endswith(b"5\r\nfirst\r\n0\r\n\r\n")


def test_client_that_leaves_frees_its_connection_though_its_application_goes_on() -> None:
    app = Slow(simple)
    with serve(Ours, app) as site:
        with site.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: site.kind.serving.in_flight, "it runs")
        wait_until(lambda: not site.kind.serving.connections, "the connection is closed")
        assert len(site.kind.serving.in_flight) == 1
        app.finish()

        assert [record.getMessage() for record in site.records.records if record.levelno >= logging.INFO] == [
            "GET /: the client has left"
        ]


def test_connection_lingers_while_the_application_goes_on() -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 1000\r\n\r\n"))
        assert Answer.of_head(client.until(b"\r\n\r\n")).status == 504
        client.send(b"x" * 1000)
        client.end()
        wait_until(lambda: not site.kind.serving.timeouts.lingering, "it has closed")
        assert not client.rest().endswith(b"<reset>")
        app.finish()


def test_peer_that_only_closed_its_side_and_pipelined_gets_504_and_no_more() -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET + b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        data = client.rest()
        app.finish()

    assert data.startswith(b"HTTP/1.1 504 ")
    assert data.count(b"HTTP/1.1 ") == 1
