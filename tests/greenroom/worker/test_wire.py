"""Answers on the wire: one that left in part ends the connection; slow readers and half-closed clients get theirs."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest

from greenroom.worker import progress
from greenroom.worker.client_errors import ClientLeft, ClientTooSlow
from greenroom.worker.connection import State
from greenroom.worker.wire import Wire

from .harness import Ours, serve, turn, wait_until

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"x" * 10_000_000


class Nobody:
    def on_readable(self) -> None: ...

    def body_failed(self, exc: ClientLeft | ClientTooSlow) -> None: ...


@pytest.fixture
def pair() -> Iterator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reader = gevent.get_hub().loop.io(ours.fileno(), 1)
    wire = Wire(ours, reader, Nobody(), body_timeout_seconds=1, send_timeout_seconds=1)
    yield wire, theirs
    wire.close()
    theirs.close()


def everything(sock: socket.socket, wire: Wire) -> bytes:
    wire.sock.shutdown(socket.SHUT_WR)
    return b"".join(iter(lambda: sock.recv(1_000_000), b""))


def in_the_hub(wire: Wire) -> None:
    assert not wire.try_send(LARGE)


def with_the_applications_own_timeout(wire: Wire) -> None:
    with gevent.Timeout(0.01, False):  # type: ignore[arg-type]  # the stubs miss it
        wire.send(LARGE)


def in_parts(wire: Wire) -> None:
    with pytest.raises(ClientTooSlow):
        wire.send_parts(b"head", LARGE, b"end")


@pytest.mark.parametrize("send", [in_the_hub, with_the_applications_own_timeout, in_parts])
def test_nothing_comes_behind_what_left_in_part(pair: tuple[Wire, socket.socket], send: Callable[[Wire], None]) -> None:
    wire, client = pair
    wire.send_timeout_seconds = 0.05

    send(wire)

    assert wire.is_broken
    client.recv(1_000_000)
    assert not wire.try_send(b"next")
    with pytest.raises(ClientLeft):
        wire.send(b"next")
    with pytest.raises(ClientLeft):
        wire.send_parts(b"next", b"part")
    assert b"next" not in everything(client, wire)


def test_what_the_kernel_did_not_take_at_all_breaks_nothing(pair: tuple[Wire, socket.socket]) -> None:
    wire, client = pair
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    try:
        while True:
            wire.sock.send(b"x")
    except BlockingIOError:
        pass

    assert not wire.try_send(b"answer")
    assert not wire.is_broken
    client.recv(1_000_000)
    assert wire.try_send(b"answer")


class Slow:
    """Waits as long as `release` is not set."""

    def __init__(self) -> None:
        self.release = gevent.event.Event()
        self.paths: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.paths.append(environ["PATH_INFO"])
        self.release.wait()
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


def test_a_503_in_part_ends_the_connection() -> None:
    app = Slow()
    with serve(Ours, app, settings={"limit_requests": 1}) as site, site.connect() as first, site.connect() as client:
        serving = site.kind.serving
        first.send(GET % 1)
        wait_until(lambda: app.paths, "one runs")
        serving.admission.wait = lambda connection, request, until: serving._turn_away(connection, request, False)
        wait_until(lambda: len(serving.connections) == 2, "the other is there")
        connection = next(one for one in serving.connections if one.state == State.IDLE)
        connection.wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sock.settimeout(0.01)
        while connection.state < State.LINGERING:
            try:
                client.sock.sendall(GET % 3 * 100)
            except OSError:
                pass
            turn()
        client.sock.settimeout(10)
        came = client.rest()
        app.release.set()

    # The kernel took the last one whole, or in part: nothing comes behind it, and all others are whole.
    whole, last = came.rsplit(b"HTTP/1.1 503 ", 1)
    assert whole.count(b"HTTP/1.1 503 ") == whole.count(b"moment.\n")
    assert b"HTTP/1.1" not in last


def test_a_client_that_ends_its_side_with_its_request_stays_in_line() -> None:
    app = Slow()
    with serve(Ours, app, settings={"limit_requests": 1}) as site, site.connect() as first, site.connect() as second:
        first.send(GET % 1)
        wait_until(lambda: app.paths, "one runs")
        second.send(GET % 2)
        second.end()
        wait_until(lambda: any(one.is_client_gone for one in site.kind.serving.connections), "its end is seen")
        app.release.set()

        assert second.rest().startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_hangs_up_later_leaves_the_line() -> None:
    app = Slow()
    with serve(Ours, app, settings={"limit_requests": 1}) as site, site.connect() as first, site.connect() as second:
        first.send(GET % 1)
        wait_until(lambda: app.paths, "one runs")
        second.send(GET % 2)
        wait_until(lambda: site.kind.serving.admission.waiting, "the other waits")
        waiting = next(one for one in site.kind.serving.connections if one.state == State.WAITING)
        waiting.arrived -= 1.0
        second.end()

        assert second.rest() == b""
        assert site.kind.serving.admission.left_requests == 1
        app.release.set()


class Reader:
    """A client whose side acknowledges `step` bytes each `every` seconds, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, step: int, every: float, segment: int) -> None:
        self.time = 0.0
        monkeypatch.setattr(progress.clock, "now", lambda: self.time)
        monkeypatch.setattr(progress, "_segment_bytes", lambda sock: segment)
        monkeypatch.setattr(
            progress, "unacknowledged", lambda sock: 4_000_000 - step * int(self.time / every) if every else 4_000_000
        )

    def takes(self, until: float) -> bool:
        def wait(seconds: float) -> bool:
            self.time += seconds
            return self.time >= until

        return progress.wait_for_room(progress.TakesNothing(None, 30), wait)


@pytest.mark.skipif(not progress.IS_LINUX, reason="only Linux tells")
@pytest.mark.parametrize(
    ("step", "every", "segment"),
    [(1_448, 0.7, 1_448), (65_483, 32.7, 65_483), (95_232, 62.0, 32_768), (1, 29.0, 1_448), (500, 0.25, 536)],
)
def test_a_slow_but_steady_reader_is_borne_with(
    monkeypatch: pytest.MonkeyPatch, step: int, every: float, segment: int
) -> None:
    assert Reader(monkeypatch, step=step, every=every, segment=segment).takes(until=1_000)


@pytest.mark.skipif(not progress.IS_LINUX, reason="only Linux tells")
@pytest.mark.parametrize(("segment", "seconds"), [(1_448, 34), (32_768, 92), (1_000_000, 92)])
def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, segment: int, seconds: float) -> None:
    reader = Reader(monkeypatch, step=0, every=0, segment=segment)

    assert not reader.takes(until=1_000)
    assert 30 <= reader.time <= seconds
