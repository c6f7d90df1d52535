"""No client holds the loop: whatever it floods, a bounded piece of it is done between two turns. Counted, not timed."""

import itertools
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from greenroom.worker import fair, tls
from greenroom.worker.fair import OPERATION_BYTES, PIECE_BYTES, PIECE_FRAMES, PREFACE_BYTES, Frames, Piece

from .harness import Ours, serve

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


FLOODS = {
    "data of a byte": frame(0, b"x", stream=1),
    "empty data": frame(0, stream=1),
    "priority": frame(2, b"\0\0\0\0\1", stream=3),
    "rapid reset": frame(1, b"\x82\x86\x84", flags=5, stream=1) + frame(3, b"\0\0\0\x08", stream=1),
    "settings": frame(4),
    "settings, acknowledged": frame(4, flags=1),
    "ping": frame(6, b"12345678"),
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


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize("read_bytes", [65_536, 1_000, 1])
def test_a_piece_of_http2_has_so_many_frames_whatever_they_are(flood: bytes, read_bytes: int) -> None:
    data = PREFACE + flood * (30_000 // len(flood))
    frames, pieces = Frames(), []

    for start in range(0, len(data), read_bytes):
        pieces += list(frames.pieces(data[start : start + read_bytes]))

    assert b"".join(pieces) == data
    if read_bytes == 65_536:
        pieces[0] = pieces[0][PREFACE_BYTES:]
        assert max(map(frames_in, pieces)) == PIECE_FRAMES
        assert sum(map(frames_in, pieces)) == frames_in(data[PREFACE_BYTES:])


def test_large_frames_are_not_cut() -> None:
    data = PREFACE + frame(0, b"x" * 16_384, stream=1) * 8

    assert list(Frames().pieces(data)) == [data]


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to which a 0 is added whenever somebody gives way."""
    given: list[int] = [0]
    plain = fair.give_way

    def give_way() -> None:
        given.append(0)
        plain()

    monkeypatch.setattr(fair, "give_way", give_way)
    monkeypatch.setattr(tls, "give_way", give_way)
    return given


@pytest.mark.parametrize("flood", [one for name, one in FLOODS.items() if "reset" not in name])
def test_between_pieces_of_http2_the_loop_turns(turns: list[int], flood: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(PREFACE + flood * 1_000)
        sock = tls.InPieces(ours)
        came = b""
        while len(came) < PREFACE_BYTES + 1_000 * len(flood):
            came += (piece := sock.recv(65_536))
            turns[-1] += frames_in(piece.removeprefix(PREFACE))

    assert max(turns) <= PIECE_FRAMES
    assert sum(turns) == 1_000


def chunks(size: int, count: int) -> bytes:
    return (b"%x\r\n" % size + b"x" * size + b"\r\n") * count + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n", chunks(1, 20_000)),
        (b"Transfer-Encoding: chunked\r\n\r\n", chunks(100_000, 30)),
        (b"Content-Length: 5000000\r\n\r\n", b"x" * 5_000_000),
    ],
    ids=["chunks of a byte", "large chunks", "a body"],
)
@pytest.mark.parametrize("read_bytes", [1_000, 1_000_000, -1])
def test_a_body_that_comes_at_once_is_read_in_turns(
    turns: list[int], monkeypatch: pytest.MonkeyPatch, head: bytes, body: bytes, read_bytes: int
) -> None:
    plain = Piece.did

    def did(self: Piece, size: int) -> None:
        turns[-1] += max(size, OPERATION_BYTES)
        plain(self, size)

    monkeypatch.setattr(Piece, "did", did)
    read = 0

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        nonlocal read
        while data := environ["wsgi.input"].read(read_bytes):
            read += len(data)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with serve(Ours, application) as site, site.connect() as client:
        gevent.spawn(client.send, HEAD + head + body)
        assert client.answer().status == 200

    assert read == (body.count(b"x") if b"chunked" in head else len(body))
    assert max(turns) < 3 * PIECE_BYTES
    assert len(turns) > 5


def test_an_answer_to_a_quick_reader_is_written_in_turns(turns: list[int]) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in itertools.repeat(None, 2_000):
            turns[-1] += 1
            yield b"x"

    with serve(Ours, application) as site, site.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer().body == b"x" * 2_000

    assert max(turns) <= PIECE_BYTES // OPERATION_BYTES + 1


def test_a_file_is_sent_in_turns(turns: list[int], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    plain = os.sendfile

    def sendfile(out: int, source: int, offset: int, count: int) -> int:
        sent = plain(out, source, offset, count)
        turns[-1] += sent
        return sent

    monkeypatch.setattr(os, "sendfile", sendfile)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", "3000000")])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    with serve(Ours, application) as site, site.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len(client.answer().body) == 3_000_000

    assert sum(turns) == 3_000_000
    assert len(turns) > 10


def test_who_gives_way_lets_sockets_be_asked() -> None:
    """What run_callback runs comes before any socket is asked: it would not do."""
    ours, theirs = socket.socketpair()
    seen: list[bytes] = []
    reader: Any = gevent.get_hub().loop.io(ours.fileno(), 1)
    with ours, theirs:
        reader.start(lambda: seen.append(ours.recv(1)))
        theirs.send(b"x")
        fair.give_way()
        fair.give_way()
        reader.stop()
        reader.close()

    assert seen == [b"x"]
