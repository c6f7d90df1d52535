"""Errors of an application before, in and after its answer, and clients that leave or read slowly."""

import logging
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import pytest

from greenroom import clock
from greenroom.in_flight import CLIENT_LEFT, WORKER_STOPS, Record
from greenroom.worker.response import answer_begins

from .answers import GET, HEAD, OLD, Start
from .harness import BOTH, Ours, serve, turn, wait_until

# --- errors


class Quit(BaseException):
    """Nobody's subclass."""


ERRORS = [ValueError("x"), OSError(5, "x"), BrokenPipeError("an upstream's"), SystemExit(1), gevent.GreenletExit()]
ERRORS += [KeyboardInterrupt(), gevent.Timeout(1), StopIteration(), Quit(), TimeoutError("an upstream's")]
NAMED = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


@NAMED
def test_error_in_a_view_is_a_500_with_a_log_line(error: BaseException) -> None:
    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/good":
            start_response("204 No Content", [])
            return []
        raise error

    with serve(Ours, application) as site, site.connect() as other:
        answer = site.ask(GET + GET)
        other.send(GET.replace(b"/ ", b"/good "))

        assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert answer.count(b"Connection: close") == 1
        assert site.records.at(logging.ERROR) == ["Error handling request GET /"]
        assert other.answer().status == 204
        assert not site.kind.serving.in_flight


class Items:
    """A body that fails after its first item, and counts its endings."""

    def __init__(self, error: BaseException | None, *, first: bytes = b"first") -> None:
        self.error = error
        self.closed = 0
        self.items = iter([first])

    def __iter__(self) -> "Items":
        return self

    def __next__(self) -> bytes:
        for item in self.items:
            return item
        if self.error is not None:
            raise self.error
        raise StopIteration

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    "error", [e for e in ERRORS if not isinstance(e, StopIteration)], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("data", [GET, OLD], ids=["HTTP/1.1", "HTTP/1.0"])
def test_error_after_the_head_breaks_the_connection(error: BaseException, data: bytes) -> None:
    items = Items(error)

    def application(environ: dict[str, Any], start_response: Start) -> Items:
        start_response("200 OK", [])
        return items

    with serve(Ours, application) as site:
        assert site.ask(data).endswith(b"<reset>")
        assert site.records.at(logging.ERROR) == ["Error handling request GET /"]
    assert items.closed == 1


@BOTH
def test_close_is_called_once_when_all_is_well(kind: Any) -> None:
    items = Items(None)

    def application(environ: dict[str, Any], start_response: Start) -> Items:
        start_response("200 OK", [])
        return items

    with serve(kind, application) as site:
        site.ask(GET)
    assert items.closed == 1


def test_close_is_called_once_and_generators_end_when_the_client_leaves() -> None:
    ended = []

    def application(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"a" * 100_000
        finally:
            ended.append(True)

    with serve(Ours, application) as site:
        with site.connect() as client:
            client.send(GET)
            client.until(b"aaa")
        wait_until(lambda: ended, "the generator ends")

        turn()
        assert ended == [True]
        assert not site.kind.serving.in_flight
        assert site.records.at(logging.WARNING) == []  # that clients leave is no error


@pytest.mark.parametrize("data", [GET, OLD], ids=["HTTP/1.1", "HTTP/1.0"])
def test_error_in_close_is_logged_and_its_answer_arrives_whole(data: bytes) -> None:
    """A connection that is broken off takes with it what the client has not read yet."""

    class Bad(Items):
        def close(self) -> None:
            raise ValueError("in close")

    def application(environ: dict[str, Any], start_response: Start) -> Items:
        start_response("200 OK", [])
        return Bad(None)

    with serve(Ours, application) as site:
        answer = site.ask(data)
        assert answer.startswith(b"HTTP/1.")
        assert b"first" in answer
        assert not answer.endswith(b"<reset>")
        assert site.records.at(logging.ERROR) == ["Error handling request GET /"]


@pytest.mark.parametrize("looks", [False, True])
def test_what_a_request_leaves_behind_says_nothing_between_later_answers(looks: bool) -> None:
    kept: list[tuple[Any, Any]] = []

    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        kept.append((start_response("200 OK", []), environ["gunicorn.socket"]))
        if looks:
            environ["gunicorn.socket"].fileno()
        if len(kept) > 1:
            write, sock = kept[0]
            write(b"LATE")
            with pytest.raises(ConnectionError, match="the request is over"):
                sock.sendall(b"LATE")
        return [b"here"]

    with serve(Ours, application) as site:
        answers = site.ask(GET + GET)

    assert answers.count(b"200 OK") == answers.count(b"here") == 2
    assert b"LATE" not in answers


def test_slow_reader_is_bounded() -> None:
    items = Items(None, first=b"a" * 50_000_000)

    def application(environ: dict[str, Any], start_response: Start) -> Items:
        start_response("200 OK", [])
        return items

    with serve(Ours, application, settings={"send_timeout_seconds": 1}) as site, site.connect() as client:
        client.send(GET)
        client.until(b"aaa")

        wait_until(lambda: items.closed, "the client is given up")
        wait_until(lambda: not site.kind.serving.connections, "its connection is closed")


@pytest.mark.parametrize(
    ("headers", "status"),
    [(b"", b"500 Internal Server Error"), (b"X-Request-Timeout-Ms: 0\r\n", b"504 Gateway Timeout")],
)
def test_error_has_no_body_for_head(headers: bytes, status: bytes) -> None:
    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        raise ValueError("of the application")

    with serve(Ours, application) as site:
        answer = site.ask(HEAD[:-2] + headers + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"Content-Length: " in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("status_code", "reason", "is_failure"),
    [
        (500, WORKER_STOPS, True),
        (500, CLIENT_LEFT, True),
        (503, CLIENT_LEFT, True),
        (503, WORKER_STOPS, False),
        (200, CLIENT_LEFT, False),
    ],
)
def test_answer_of_a_request_that_was_cut_short_is_no_failure_of_the_application(
    status_code: int, reason: str, is_failure: bool
) -> None:
    record = Record(0.0, deadline=clock.now() + 60)
    record.cut(reason)
    status = f"{status_code} Whatever"

    assert answer_begins(record, status) is not is_failure
