"""No client holds the loop: whatever it floods, a bounded piece of it is done between two turns. Counted, not timed."""

import itertools
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from greenroom.worker import fair
from greenroom.worker.fair import OPERATION_BYTES, PIECE_BYTES, Piece

from .harness import Ours, serve, wait_until

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to which a 0 is added whenever somebody gives way."""
    given: list[int] = [0]
    plain = fair.give_way

    def give_way() -> None:
        given.append(0)
        plain()

    monkeypatch.setattr(fair, "give_way", give_way)
    return given


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
    """Callbacks of run_callback run before any socket is asked: they would not do."""
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


def test_requests_of_a_client_that_pipelines_have_a_turn_each() -> None:
    """The loop asks its sockets before the next one: another client is never behind more than one of them."""
    order: list[str] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        order.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with serve(Ours, application) as site, site.connect() as flood, site.connect() as other:
        wait_until(lambda: len(site.kind.serving.connections) == 2, "both are there")
        flood.send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)
        wait_until(lambda: len(order) > 10, "it has begun")
        other.send(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
        seen = len(order)
        other.answer()

    assert order.index("/other") - seen < 50


def test_trailers_without_end_are_read_in_turns_and_refused(turns: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Piece.did

    def did(self: Piece, size: int) -> None:
        turns[-1] += max(size, OPERATION_BYTES)
        plain(self, size)

    monkeypatch.setattr(Piece, "did", did)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["wsgi.input"].read()
        raise AssertionError("it has no end")

    with serve(Ours, application) as site, site.connect() as client:
        gevent.spawn(client.send, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 300_000)
        assert client.answer().status == 400

    assert max(turns) < 2 * PIECE_BYTES
