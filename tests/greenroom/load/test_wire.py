"""greenroom/load/wire.py: answers from pieces of any size, and everything that is none."""

import pytest

from greenroom.load.wire import AnswerReader, Garbled

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n"
HINTED = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + LENGTH


def reader(largest_bytes: int = 1000, **how: int) -> AnswerReader:
    made = AnswerReader(largest_bytes, {})
    made.begin(keeps_body=True, **how)
    return made


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, HINTED], ids=["length", "chunked", "hinted"])
@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 1000])
def test_answer_is_read_from_pieces_of_any_size(answer: bytes, piece_bytes: int) -> None:
    made = reader()
    pieces = [answer[at : at + piece_bytes] for at in range(0, len(answer), piece_bytes)]

    complete = [made.feed(piece) for piece in pieces]

    assert complete == [False] * (len(pieces) - 1) + [True]
    assert made.head is not None
    assert (made.head.status, made.body, made.body_bytes, made.keeps_connection) == (200, b"hello", 5, True)


@pytest.mark.parametrize(
    ("lines", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_connection_is_kept_when_the_server_says_so(lines: bytes, keeps: bool) -> None:
    made = reader()

    assert made.feed(lines + b"Content-Length: 0\r\n\r\n")
    assert made.keeps_connection is keeps


def test_answer_without_a_length_ends_with_the_connection() -> None:
    made = reader()

    assert not made.feed(b"HTTP/1.1 200 OK\r\n\r\nhel")
    assert not made.feed(b"lo")
    assert made.feed_end()
    assert made.body == b"hello"
    assert not made.keeps_connection


def test_answers_without_a_body_end_with_their_head() -> None:
    asked_for_head = AnswerReader(1000, {})
    asked_for_head.begin(is_head_request=True)

    assert asked_for_head.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert reader().feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert reader().feed(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
        LENGTH + b"!",
        CHUNKED + b"!",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000,
    ],
)
def test_what_is_no_answer_is_garbled(answer: bytes) -> None:
    with pytest.raises(Garbled):
        reader().feed(answer)


@pytest.mark.parametrize(
    ("part", "kind"),
    [(b"", "closed without an answer"), (LENGTH[:-1], "answer cut short"), (LENGTH[:20], "answer cut short")],
)
def test_answer_that_ends_too_early_is_garbled(part: bytes, kind: str) -> None:
    made = reader()
    if part:
        made.feed(part)

    with pytest.raises(Garbled, match=kind):
        made.feed_end()


@pytest.mark.parametrize("piece_bytes", [1, 3, 1000])
def test_event_stream_is_complete_with_its_last_event(piece_bytes: int) -> None:
    made = reader(events=2)
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\ndata: 2\n\n"
    pieces = [stream[at : at + piece_bytes] for at in range(0, len(stream), piece_bytes)]

    complete = [made.feed(piece) for piece in pieces]

    assert complete == [False] * (len(pieces) - 1) + [True]
    assert made.events == 2
    assert not made.keeps_connection
