"""Connections of HTTP/2 that end: drained, idle, given away, or by a goodbye, and answers that are still read then."""

import itertools
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import h2.errors
import h2.events
import pytest

from greenroom.worker import progress
from greenroom.worker.drain import Drain
from greenroom.worker.http2 import outgoing
from greenroom.worker.http2.engine import GOING_AWAY

from ..harness import turn, wait_until
from .client import HTTP2Client
from .site import App, site


def test_worker_that_drains_answers_and_says_goodbye(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        stream = client.ask("/wait")
        wait_until(lambda: app.running, "it runs")
        drain = Drain(running.kind.serving, [], lambda: True)
        drain.start()
        app.release.set()
        client.until_closed()
        wait_until(lambda: not running.kind.serving.connections, "it is closed")
        drain.stop()

        assert client.body(stream) == b"ok"
        assert client.error_code() == 0


def test_client_that_goes_on_asking_while_the_worker_drains_is_told_and_answered(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        client.ask("/wait")
        wait_until(lambda: app.running, "it runs")
        for connection in running.kind.serving.connections:
            connection.begin_to_drain()
        client.ask("/wait")
        came = b""
        while GOING_AWAY not in came:
            came += client.sock.recv(65_536)
        app.release.set()
        while data := client.sock.recv(65_536):
            came += data

    assert came.count(b"ok") == 2


def test_connection_that_is_given_away_is_told_so(app: App) -> None:
    class GivesOne:
        def gives_away(self) -> bool:
            return True

    with site(app) as running, HTTP2Client(running) as client:
        running.kind.serving.sharing = GivesOne()
        client.ask()
        client.until_closed()

        assert client.error_code() == 0
        assert client.all_of(h2.events.StreamEnded)


def test_client_that_says_goodbye_gets_its_answers(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        stream = client.ask("/wait")
        wait_until(lambda: app.running, "it runs")
        client.send(b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))
        turn()
        app.release.set()
        client.until_closed()

        assert client.body(stream) == b"ok"


def test_idle_connection_is_closed_with_goodbye(app: App) -> None:
    with site(app, keepalive_seconds=1) as running, HTTP2Client(running) as client:
        client.finish(client.ask())
        client.until_closed()

        assert client.error_code() == 0


def goodbye_of_client(running: Any, client: HTTP2Client) -> None:
    client.send(b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))


def drain(running: Any, client: HTTP2Client) -> None:
    for connection in list(running.kind.serving.connections):
        connection.begin_to_drain()


def idle(running: Any, client: HTTP2Client) -> None:
    """The client does not read for longer than an idle connection is kept."""


@pytest.mark.parametrize("end", [goodbye_of_client, drain, idle])
def test_answer_that_the_kernel_has_not_taken_yet_is_sent_before_the_connection_ends(
    app: App, end: Callable[[Any, HTTP2Client], None]
) -> None:
    with site(app, send_timeout_seconds=10) as running, HTTP2Client(running) as client:
        client.finish(client.ask())
        (connection,) = running.kind.serving.connections
        for sock, option in ((connection.sock, socket.SO_SNDBUF), (client.sock, socket.SO_RCVBUF)):
            sock.setsockopt(socket.SOL_SOCKET, option, 4096)
        running.kind.serving.timeouts.keepalive_seconds = 0
        waiting = client.ask("/wait")
        wait_until(lambda: app.running, "it runs")
        stream = client.ask("/large/60000")
        wait_until(lambda: connection.out.waiting, "the answer waits")
        end(running, client)
        app.release.set()
        wait_until(lambda: not running.kind.serving.in_flight, "both are answered")
        running.kind.serving.timeouts.sweep()
        client.until_closed()

        assert len(client.body(stream)) == 60_000
        assert client.body(waiting) == b"ok"


def test_client_that_still_reads_its_last_answer_loses_nothing_when_its_connection_ends(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends updates of windows meanwhile, and those a closed connection would answer with a reset."""
    monkeypatch.setattr("greenroom.worker.timeouts.LINGER_SECONDS", 0)
    size = 150_000
    with site(app) as running, HTTP2Client(running, window=size) as client:
        client.h2.increment_flow_control_window(size)
        client.finish(client.ask())
        (connection,), timeouts = running.kind.serving.connections, running.kind.serving.timeouts
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        stream = client.ask(f"/large/{size}")
        wait_until(lambda: len(app.seen) == 2 and timeouts.idle, "it is answered")
        timeouts.keepalive_seconds = 0
        for _ in range(3):
            timeouts.sweep()
            turn()
            client.h2.ping(bytes(8))
            client.flush()
        client.until_closed()

        assert len(client.body(stream)) == size
        wait_until(lambda: (timeouts.sweep(), not timeouts.lingering and not timeouts.taking)[1], "it is closed")


def test_client_that_reads_slowly_and_steadily_is_not_given_up(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look finds one more byte taken, and ten seconds gone."""
    looks = itertools.count()
    monkeypatch.setattr(progress, "LOOKS", 1000)
    monkeypatch.setattr(progress, "unacknowledged", lambda sock: 10**9 - next(looks))
    monkeypatch.setattr(outgoing, "unacknowledged", lambda sock: 10**9 - next(looks))
    monkeypatch.setattr(progress, "clock", SimpleNamespace(now=lambda: 10.0 * next(looks)))
    size = 1_000_000
    with site(app) as running, HTTP2Client(running, window=2 * size) as client:
        client.h2.increment_flow_control_window(2 * size)
        client.finish(client.ask())
        (connection,) = running.kind.serving.connections
        for sock, option in ((connection.sock, socket.SO_SNDBUF), (client.sock, socket.SO_RCVBUF)):
            sock.setsockopt(socket.SOL_SOCKET, option, 65_536)
        stream = client.ask(f"/large/{size}")
        wait_until(lambda: next(looks) > 600, "it was looked at often")
        client.finish(stream)

        assert len(client.body(stream)) == size
