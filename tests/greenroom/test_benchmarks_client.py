"""benchmarks/client.py: reading answers, and what counts as one."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.client import AnswerParser, Generator, Load, MalformedAnswer, Recorder, Sample

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
def test_answer_is_read_from_pieces_of_any_size(answer: bytes, piece_bytes: int) -> None:
    parser = AnswerParser()
    pieces = [answer[at : at + piece_bytes] for at in range(0, len(answer), piece_bytes)]

    complete = [parser.feed(piece) for piece in pieces]

    assert complete == [False] * (len(pieces) - 1) + [True]
    assert (parser.status, parser.body, parser.keeps_connection) == (200, b"hello", True)


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nconnection: Keep-Alive\r\n", True),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_connection_is_kept_when_the_server_says_so(head: bytes, keeps: bool) -> None:
    parser = AnswerParser()

    assert parser.feed(head + b"Content-Length: 0\r\n\r\n")
    assert parser.keeps_connection is keeps


def test_answer_without_a_length_ends_with_the_connection() -> None:
    parser = AnswerParser()

    assert not parser.feed(b"HTTP/1.1 200 OK\r\n\r\nhel")
    assert not parser.feed(b"lo")
    assert parser.feed_end()
    assert (parser.body, parser.keeps_connection) == (b"hello", False)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nConte", WHOLE[:-1], CHUNKED[:-2]])
def test_answer_that_is_cut_short_is_malformed(part: bytes) -> None:
    parser = AnswerParser()
    if part:
        assert not parser.feed(part)

    with pytest.raises(MalformedAnswer, match="before the answer was complete"):
        parser.feed_end()


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabcd",
        WHOLE + b"!",
        CHUNKED + b"!",
    ],
)
def test_garbage_is_malformed(garbage: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        AnswerParser().feed(garbage)


@pytest.fixture
def recorder() -> Recorder:
    """Measures from 10 to 20 s."""
    recorder = Recorder()
    recorder.begin, recorder.end = 10.0, 20.0
    return recorder


def test_warm_up_counts_for_nothing(recorder: Recorder) -> None:
    recorder.record(8.0, 9.0, None)
    recorder.record(8.0, 9.5, "timeout")

    assert recorder.sample == Sample()


def test_answer_asked_for_in_the_warm_up_is_throughput_but_no_latency(recorder: Recorder) -> None:
    recorder.record(9.0, 11.0, None)

    assert recorder.sample.completed == 1
    assert recorder.sample.latencies_ms == []


def test_answer_that_comes_after_the_end_is_latency_but_no_throughput(recorder: Recorder) -> None:
    """Leaving it out would flatter: the slowest answers are those that were not there in time."""
    recorder.record(19.0, 24.0, None)

    assert recorder.sample.completed == 0
    assert recorder.sample.latencies_ms == [5000.0]


@pytest.mark.parametrize(("started", "ended"), [(9.0, 11.0), (11.0, 12.0), (19.0, 50.0)])
def test_error_after_the_warm_up_is_counted_whenever_it_began(recorder: Recorder, started: float, ended: float) -> None:
    recorder.record(started, ended, "connection reset")

    assert recorder.sample.errors == {"connection reset": 1}
    assert recorder.sample.latencies_ms == []


def test_timeout_is_an_error_and_a_latency(recorder: Recorder) -> None:
    recorder.record(12.0, 42.0, "timeout")

    assert recorder.sample.errors == {"timeout": 1}
    assert recorder.sample.latencies_ms == [30_000.0]


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """The port of a server that sends `answers` in turn for whatever it receives, and closes where one is empty."""

    def serve() -> None:
        answer = itertools.cycle(answers)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                while connection.recv(4096) and (data := next(answer)):
                    connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def run(port: int, *, seconds: float = 0.15, timeout_seconds: float = 5.0) -> Sample:
    load = Load(
        host="127.0.0.1",
        port=port,
        path="/",
        expected_body=b"hello",
        clients=1,
        warm_up_seconds=0.05,
        seconds=seconds,
        timeout_seconds=timeout_seconds,
    )
    return Generator(load).run()


def test_right_answers_are_counted_and_the_connection_is_kept() -> None:
    with answering(WHOLE) as port:
        sample = run(port)

    assert sample.errors == {}
    assert sample.completed > 10
    assert len(sample.latencies_ms) >= sample.completed - 1
    assert 0 < sample.generator_cpu_ratio <= 1.2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (WHOLE.replace(b"hello", b"jello"), "wrong body"),
        (WHOLE.replace(b"200 OK", b"503 Service Unavailable"), "status 503"),
        (b"220 smtp ready\r\n\r\n", "malformed answer"),
        (b"", "malformed answer"),
    ],
)
def test_wrong_answer_is_an_error_and_no_throughput(answer: bytes, error: str) -> None:
    with answering(answer) as port:
        sample = run(port)

    assert set(sample.errors) == {error}
    assert sample.completed == 0


def test_wrong_answer_after_right_ones_is_noticed() -> None:
    """An answer that is, byte for byte, one that was right is not read again."""
    with answering(WHOLE, WHOLE, WHOLE.replace(b"hello", b"jello")) as port:
        sample = run(port, seconds=0.5)

    assert set(sample.errors) == {"wrong body"}
    assert 2 * sample.errors["wrong body"] <= sample.completed + 3


def test_silence_is_a_timeout() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n") as port:
        sample = run(port, seconds=0.5, timeout_seconds=0.1)

    assert set(sample.errors) == {"timeout"}
    assert min(sample.latencies_ms) >= 100


def test_request_with_a_large_body_is_sent_in_pieces() -> None:
    body = bytes(4_000_000)
    received = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            request = b""
            while len(request) < len(load.request):
                request += connection.recv(1 << 20)
            received.append(request)
            connection.sendall(WHOLE)
            while connection.recv(1 << 20):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        load = Load(
            host="127.0.0.1",
            port=listener.getsockname()[1],
            path="/",
            expected_body=b"hello",
            clients=1,
            warm_up_seconds=0.0,
            seconds=0.05,
            timeout_seconds=0.2,
            body=body,
        )
        thread = threading.Thread(target=serve)
        thread.start()
        sample = Generator(load).run()
        thread.join(30)

    assert received == [load.request]
    assert received[0].startswith(b"POST / HTTP/1.1\r\n")
    assert b"Content-Length: 4000000\r\n" in received[0]
    assert set(sample.errors) <= {"timeout"}  # of the second request, which nobody answers


def test_refused_connection_is_an_error_and_is_not_tried_again_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    sample = run(port)

    assert set(sample.errors) == {"connection refused"}
    assert sample.errors["connection refused"] <= 3
