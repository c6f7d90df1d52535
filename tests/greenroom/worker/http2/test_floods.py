"""No client of HTTP/2 holds the loop or the memory, whatever it floods. Counted, not timed."""

import socket
from collections.abc import Callable
from typing import Any

import gevent
import h2.errors
import h2.events
import h2.settings
import pytest

from greenroom.worker.http2 import outgoing
from greenroom.worker.http2.connection import HTTP2Connection
from greenroom.worker.http2.frames import (
    MOST_QUIET,
    MOST_RESETS,
    PIECE_FRAMES,
    PREFACE,
    QUIET_PER_SENT,
    WINDOW_SECONDS,
    Floods,
    Frames,
)
from greenroom.worker.http2.outgoing import MOST_WAITING_BYTES, Outgoing

from ..harness import Ours, serve, turn, wait_until
from .client import CLEARTEXT, HTTP2Client

REQUEST = b"\x82\x86\x84\x41\x01x"  # GET / of http://x
CALM = int(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def rapid_reset(count: int) -> bytes:
    streams = (2 * number + 1 for number in range(count))
    return b"".join(
        frame(1, REQUEST, flags=5, stream=stream) + frame(3, b"\0\0\0\x08", stream=stream) for stream in streams
    )


FLOODS = {
    "data of a byte": frame(0, b"x", stream=1),
    "empty data": frame(0, stream=1),
    "priority": frame(2, b"\0\0\0\0\1", stream=3),
    "settings": frame(4),
    "settings, acknowledged": frame(4, flags=1),
    "ping": frame(6, b"12345678"),
    "ping, acknowledged": frame(6, b"12345678", flags=1),
    "window updates": frame(8, b"\0\0\0\1"),
    "continuation": frame(9, b"", stream=1),
    "unknown": frame(200, b"?"),
}


def frames_in(data: bytes) -> int:
    """How many frames begin in `data`, which begins with one or with the rest of one that is longer than it."""
    count = position = 0
    while position + 9 <= len(data):
        position += 9 + int.from_bytes(data[position : position + 3], "big")
        count += 1
    return count


@pytest.mark.parametrize("flood", [*FLOODS.values(), rapid_reset(1)], ids=[*FLOODS, "rapid reset"])
@pytest.mark.parametrize("read_bytes", [65_536, 1_000, 1])
def test_a_piece_has_so_many_frames_whatever_they_are(flood: bytes, read_bytes: int) -> None:
    data = PREFACE + flood * (30_000 // len(flood))
    frames, pieces = Frames(Floods()), []

    for start in range(0, len(data), read_bytes):
        pieces += list(frames.pieces(data[start : start + read_bytes]))

    assert b"".join(pieces) == data
    if read_bytes == 65_536:
        pieces[0] = pieces[0][len(PREFACE) :]
        assert max(map(frames_in, pieces)) == PIECE_FRAMES
        assert sum(map(frames_in, pieces)) == frames_in(data[len(PREFACE) :])


def test_large_frames_are_not_cut() -> None:
    data = PREFACE + frame(0, b"x" * 16_384, stream=1) * 8

    assert list(Frames(Floods()).pieces(data)) == [data]


def test_quiet_frames_are_allowed_for_by_answers_and_by_time() -> None:
    time = 0.0
    floods = Floods(lambda: time)
    floods.quiet = MOST_QUIET
    assert not floods.are_too_many()
    floods.quiet += 1
    assert floods.are_too_many()
    floods.sent_data()
    assert not floods.are_too_many()
    floods.quiet += QUIET_PER_SENT
    time = WINDOW_SECONDS
    assert not floods.are_too_many()
    assert floods.quiet == 0


def simple(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames of one connection that each turn of the loop handled."""
    counts: list[int] = []
    plain = HTTP2Connection._handle

    def handle(self: HTTP2Connection, piece: bytes) -> None:
        now = (id(self), self.serving.turns.count)
        if now not in seen[-1:]:
            counts.append(0)
            seen.append(now)
        counts[-1] += frames_in(piece.removeprefix(PREFACE))
        plain(self, piece)

    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(HTTP2Connection, "_handle", handle)
    return counts


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_flood_is_handled_in_turns_and_ends_its_connection(turns: list[int], flood: bytes) -> None:
    with serve(Ours, simple, cfg=CLEARTEXT) as site, HTTP2Client(site) as client, HTTP2Client(site) as other:
        client.h2.send_headers(1, [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "x")])
        gevent.spawn(client.send, client.h2.data_to_send() + flood * 3_000)
        client.acknowledges = False
        if flood == FLOODS["data of a byte"]:  # a body like any other, as long as it is wanted
            client.until(lambda: client.all_of(h2.events.StreamReset), "it is asked to stop")
        else:
            client.until_closed()
        other.finish(other.ask())

    assert max(turns) <= PIECE_FRAMES
    assert sum(turns) <= MOST_QUIET + 10 * PIECE_FRAMES or flood == FLOODS["data of a byte"]


def test_rapid_reset_ends_the_connection_and_runs_nothing(turns: list[int]) -> None:
    seen = []

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        seen.append(environ)
        return simple(environ, start)

    with serve(Ours, application, cfg=CLEARTEXT) as site, HTTP2Client(site) as client:
        client.send(rapid_reset(3_000))
        client.until_closed()

        assert client.error_code() == CALM
        assert not site.kind.serving.in_flight
    assert max(turns) <= PIECE_FRAMES
    assert len(seen) <= PIECE_FRAMES  # whose reset came in the next piece
    assert sum(turns) <= 2 * MOST_RESETS + 2 * PIECE_FRAMES


def test_streams_that_were_reset_and_still_run_count(monkeypatch: pytest.MonkeyPatch) -> None:
    release = gevent.event.Event()
    running = 0

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        nonlocal running
        running += 1
        release.wait()
        return simple(environ, start)

    cfg = {**CLEARTEXT, "http2_max_concurrent_streams": 5}
    with serve(Ours, application, cfg=cfg) as site, HTTP2Client(site) as client:
        for number in range(20):
            stream = client.ask("/", "POST", ends=False)
            if number < 5:
                wait_until(lambda: running == number + 1, "it runs")  # noqa: B023
            client.h2.reset_stream(stream)
            client.flush()
        turn(5)
        assert running == 5
        release.set()
        wait_until(lambda: not site.kind.serving.in_flight, "all are over")


def test_headers_that_never_end_end_the_connection() -> None:
    with serve(Ours, simple, cfg=CLEARTEXT) as site, HTTP2Client(site) as client:
        client.send(frame(1, REQUEST, flags=1, stream=1) + frame(9, b"\x82" * 100, stream=1) * 500)
        client.until_closed()

        assert client.error_code() not in (None, 0)
        assert not site.kind.serving.in_flight


def test_headers_that_unpack_to_a_bomb_end_the_connection() -> None:
    with serve(Ours, simple, cfg=CLEARTEXT) as site, HTTP2Client(site) as client:
        bomb = b"\x40\x01a\x7f\x81\x1e" + b"b" * 4_000 + b"\xbe" * 10_000
        client.send(frame(1, REQUEST + bomb, flags=5, stream=1))
        client.until_closed()

        assert client.error_code() not in (None, 0)


def test_who_makes_us_answer_and_does_not_read_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are bounded, and so is the time that they wait for."""
    monkeypatch.setattr(Floods, "are_too_many", lambda self: False)
    monkeypatch.setattr(outgoing, "LOOK_SECONDS", 0.1)
    most = 0
    plain = Outgoing.add

    def add(self: Outgoing, data: bytes) -> None:
        nonlocal most
        plain(self, data)
        most = max(most, len(self.waiting))

    monkeypatch.setattr(Outgoing, "add", add)
    monkeypatch.setattr("greenroom.worker.progress._segment_bytes", lambda sock: 1)
    with serve(Ours, simple, cfg=CLEARTEXT, settings={"send_timeout_seconds": 1}) as site, HTTP2Client(site) as client:
        wait_until(lambda: site.kind.serving.connections, "it is there")
        (connection,) = site.kind.serving.connections
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sender = gevent.spawn(client.send, frame(6, b"12345678") * 100_000)
        wait_until(lambda: most > MOST_WAITING_BYTES, "answers wait")
        wait_until(lambda: not site.kind.serving.connections, "it is given up")
        sender.join()

    assert most < 2 * MOST_WAITING_BYTES


def large(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    start("200 OK", [("Content-Length", "100000")])
    return [b"x" * 100_000]


def test_windows_that_stay_shut_end_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenroom.worker.progress._segment_bytes", lambda sock: 1)

    with serve(Ours, large, cfg=CLEARTEXT, settings={"send_timeout_seconds": 1}) as site:
        with HTTP2Client(site, window=0) as client:
            streams = [client.ask(), client.ask()]
            client.until(lambda: len(client.all_of(h2.events.StreamReset)) == 2, "both are given up")
            assert not site.kind.serving.in_flight
            assert [client.body(stream) for stream in streams] == [b"", b""]


def test_window_that_becomes_less_than_none_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenroom.worker.progress._segment_bytes", lambda sock: 1)

    with serve(Ours, large, cfg=CLEARTEXT, settings={"send_timeout_seconds": 1}) as site:
        with HTTP2Client(site, window=100) as client:
            client.acknowledges = False
            stream = client.ask()
            client.until(lambda: len(client.body(stream)) == 100, "the window is used up")
            client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
            client.flush()
            client.until(lambda: client.all_of(h2.events.StreamReset), "it is given up")


def test_upload_is_bounded_by_what_the_application_has_read() -> None:
    release = gevent.event.Event()

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        release.wait()
        size = 0
        while data := environ["wsgi.input"].read(10_000):
            size += len(data)
        start("200 OK", [])
        return [str(size).encode()]

    with serve(Ours, application, cfg=CLEARTEXT) as site, HTTP2Client(site) as client:
        stream, sent = client.ask("/", "POST", ends=False), 0
        while client.h2.local_flow_control_window(stream):
            part = min(16_384, client.h2.local_flow_control_window(stream))
            client.upload(stream, b"x" * part, ends=False)
            sent += part
        turn(5)
        (ours,) = site.kind.serving.in_flight
        assert sum(map(len, ours.chunks)) == sent == 65_535
        release.set()
        client.until(lambda: client.h2.local_flow_control_window(stream) > 0, "there is room again")
        client.upload(stream, b"x" * 1_000)
        client.finish(stream)

        assert client.body(stream) == str(sent + 1_000).encode()
