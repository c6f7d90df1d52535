# ruff: noqa: E501  the tables read better with a case on a line
"""Answers of an application, how they go over the wire, and what happens when it fails.

DIFFERENCES lists where the stock gevent worker answers otherwise. Everything else here holds for both.
"""

import gzip
import io
import logging
import os
import tempfile
import wsgiref.validate
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response as GunicornResponse

from greenroom import clock
from greenroom.in_flight import CLIENT_LEFT, WORKER_STOPS, Record
from greenroom.insight.account import Account
from greenroom.worker import response
from greenroom.worker.request import PlainRequest
from greenroom.worker.response import REMEMBERED_NAMES, Response, answer_begins

from .harness import DATE, Ours, Stock, serve, turn, wait_until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
BOTH = pytest.mark.parametrize("kind", [Ours, Stock], ids=lambda kind: kind.name)
Start = Callable[..., Callable[[bytes], object]]

# Behaviour                                       stock gevent worker     ours             because
DIFFERENCES = """
a head that does not come within its time         closed, silently        408              RFC 9110 15.5.9
a body that does not come                         waited for, for ever    408              RFC 9110 15.5.9
a body cut short by the client                    given as if whole       400              RFC 9112 8
100 Continue                                      at once                 at first read    RFC 9110 10.1.1
100 Continue never asked for, answer              keep-alive              close            RFC 9110 10.1.1
no Host in HTTP/1.1, or one that is none          accepted                400              RFC 9112 3.2
Host beside an absolute target                    Host wins               target wins      RFC 9112 3.2.2
Connection: TE, close                             kept                    closed           RFC 9112 9.6
closing while the client still sends              reset                   in two steps     RFC 9112 9.6
a body shorter than its Content-Length            kept, out of step       broken           RFC 9112 8
Content-Length: -5, or two that differ            sent                    500              RFC 9110 8.6
start_response with exc_info before the body      headers added           replaced         PEP 3333
an empty first item of the body                   sends the head          sends nothing    PEP 3333
no start_response, then HEAD or close             HTTP/1.1 None           500              PEP 3333
SystemExit, GreenletExit, KeyboardInterrupt       closed, not logged      500, logged
an error after the head                           closed                  reset            a 1.0 client can't tell else
an OSError of the application                     closed, logged          500, logged
an error's answer to HEAD                         has a body              has none         RFC 9110 9.3.2
PROXY LOCAL                                       REMOTE_ADDR is None     the connection's PROXY protocol 2.2
PROXY UNKNOWN, UDP, UNIX                          400, 500                the connection's PROXY protocol 2.1, 2.2
a v2 PROXY header that is wrong                   500, a traceback        400
a file of /proc                                   empty                   read
"""


class NoBody:
    """The wire of a request without a body."""

    interim, body = b"", None


def answers(*items: bytes, status: str = "200 OK", headers: tuple[tuple[str, str], ...] = ()) -> Any:
    def application(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response(status, list(headers))
        yield from items

    return application


FRAMES = {
    # (what the application answers, what is asked) -> what must be there, what the body is
    "a length": (answers(b"ab", b"cd", headers=(("Content-Length", "4"),)), GET, b"Content-Length: 4\r\n", b"abcd"),
    "no length": (answers(b"ab", b"cd"), GET, b"Transfer-Encoding: chunked", b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"),
    "no length, empty items": (answers(b"ab", b"", b"cd"), GET, b"chunked", b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"),
    "no length, nothing": (answers(), GET, b"chunked", b"0\r\n\r\n"),
    "no length, HTTP/1.0": (answers(b"ab", b"cd"), OLD, b"HTTP/1.0 200 OK", b"abcd"),
    "more than its length": (answers(b"abcd", b"ef", headers=(("Content-Length", "3"),)), GET, b": 3\r\n", b"abc"),
    "HEAD": (answers(b"abcd"), HEAD, b"keep-alive", b""),
    "HEAD with a length": (answers(b"abcd", headers=(("Content-Length", "4"),)), HEAD, b"Content-Length: 4", b""),
    "204": (answers(b"abcd", status="204 No Content"), GET, b"204 No Content", b""),
    "204 with a length": (answers(status="204 No Content", headers=(("Content-Length", "0"),)), GET, b"204", b""),
    "304": (answers(b"abcd", status="304 Not Modified"), GET, b"304 Not Modified", b""),
    "hop-by-hop headers": (answers(b"a", headers=(("Transfer-Encoding", "x"), ("Keep-Alive", "y"))), GET, b"1.1", b"1\r\na\r\n0\r\n\r\n"),
    "latin-1": (answers(headers=(("X-A", "caf\xe9"), ("Content-Length", "0"))), GET, b"X-A: caf\xe9\r\n", b""),
    "a header twice": (answers(headers=(("A", "1"), ("A", "2"), ("Content-Length", "0"))), GET, b"A: 1\r\nA: 2\r\n", b""),
    "large items": (answers(b"a" * 200_000, headers=(("Content-Length", "200000"),)), GET, b"200000", b"a" * 200_000),
    "large chunks": (answers(b"a" * 200_000), GET, b"chunked", b"30D40\r\n" + b"a" * 200_000 + b"\r\n0\r\n\r\n"),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize(("application", "data", "head", "body"), FRAMES.values(), ids=FRAMES)
def test_response_is_framed(kind: Any, application: Any, data: bytes, head: bytes, body: bytes) -> None:
    with serve(kind, application) as site:
        answer = site.ask(data)

    start, _, rest = answer.partition(b"\r\n\r\n")
    assert head in start + b"\r\n"
    assert rest == body
    assert start.count(b"Content-Length") + start.count(b"Transfer-Encoding") <= 1


# --- what the application may not do


WRONG = {
    "a line end in a value": [("X", "a\r\nSet-Cookie: b")],
    "LF in a value": [("X", "a\nb")],
    "NUL in a value": [("X", "a\0b")],
    "a line end in a name": [("X\r\nY", "a")],
    "a colon in a name": [("X:", "a")],
    "a space in a name": [("X Y", "a")],
    "an empty name": [("", "a")],
    "bytes for a value": [("X", b"a")],
    "bytes for a name": [(b"X", "a")],
    "a number": [("Content-Length", 4)],
    "a length that is none": [("Content-Length", "four")],
}
ONLY_OURS_REFUSES = {
    "a negative length": [("Content-Length", "-4")],
    "a length with plus": [("Content-Length", "+4")],
    "two lengths": [("Content-Length", "4"), ("content-length", "5")],
}


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        *(pytest.param(kind, headers, id=f"{kind.name}-{name}") for name, headers in WRONG.items() for kind in (Ours, Stock)),
        *(pytest.param(Ours, headers, id=name) for name, headers in ONLY_OURS_REFUSES.items()),
    ],
)  # fmt: skip
def test_wrong_header_of_an_application_is_a_500(kind: Any, headers: Any) -> None:
    with serve(kind, answers(b"abcd", headers=tuple(headers))) as site:
        answer = site.ask(GET + GET)

        assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert b"Set-Cookie" not in answer
        assert answer.count(b"Connection: close") == 1
        assert site.records.at(logging.ERROR) != []


@BOTH
@pytest.mark.parametrize("status", ["200 OK\r\nX: y", "OK", "20 OK", 200, "200\nOK"])
def test_wrong_status_is_a_500(kind: Any, status: Any) -> None:
    with serve(kind, answers(status=status)) as site:
        assert site.ask(GET).startswith(b"HTTP/1.1 500 ")


@BOTH
def test_second_start_response_is_a_500(kind: Any) -> None:
    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    with serve(kind, application) as site:
        assert site.ask(GET).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("data", [GET, HEAD, OLD])
def test_no_start_response_is_a_500(data: bytes) -> None:
    with serve(Ours, lambda environ, start_response: [b"abc"]) as site:
        assert site.ask(data).startswith(b"HTTP/1.1 500 ")


def test_text_for_bytes_is_a_500() -> None:
    with serve(Ours, answers("text")) as site:  # type: ignore[arg-type]
        assert site.ask(GET).startswith(b"HTTP/1.1 500 ")


def test_short_body_breaks_the_connection() -> None:
    with serve(Ours, answers(b"abc", headers=(("Content-Length", "4"),))) as site:
        assert site.ask(GET + GET).endswith(b"<reset>")
        assert any("less than its Content-Length" in message for message in site.records.at(logging.WARNING))


# --- start_response and write


@BOTH
def test_write_sends_at_once(kind: Any) -> None:
    release = gevent.event.Event()

    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"first")
        release.wait()
        return [b"second"]

    with serve(kind, application) as site, site.connect() as client:
        client.send(GET)
        client.until(b"5\r\nfirst\r\n")
        release.set()

        assert client.until(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"


def test_connection_is_kept_if_the_head_said_so_before_a_drain_began() -> None:
    """Else a client that sends its next request at once gets nothing for it."""
    release = gevent.event.Event()

    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        write = start_response("200 OK", [])
        if not release.is_set():
            write(b"first")
            release.wait()
        return [b"second"]

    with serve(Ours, application) as site, site.connect() as client:
        client.send(GET)
        client.until(b"5\r\nfirst\r\n")
        for request in site.kind.serving.in_flight.values():
            request.force_close()  # as a drain does
        release.set()
        client.until(b"0\r\n\r\n")
        client.send(GET)

        assert client.answer().status == 200


def test_stored_headers_are_replaced_after_an_error() -> None:
    def application(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("X-Old", "1"), ("Content-Length", "3")])
        yield b""
        try:
            raise ValueError
        except ValueError as exc:
            start_response("500 Oh No", [("X-New", "2")], (type(exc), exc, exc.__traceback__))
        yield b"error"

    with serve(Ours, application) as site:
        answer = site.ask(GET)

    assert answer.startswith(b"HTTP/1.1 500 Oh No\r\n")
    assert b"X-New: 2\r\n" in answer
    assert b"X-Old" not in answer
    assert answer.endswith(b"5\r\nerror\r\n0\r\n\r\n")


def test_error_after_the_head_is_raised_again_by_start_response() -> None:
    def application(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        try:
            raise ValueError("the reason")
        except ValueError as exc:
            start_response("500 Oh No", [], (type(exc), exc, exc.__traceback__))

    with serve(Ours, application) as site:
        answer = site.ask(GET)

        assert answer.endswith(b"first\r\n<reset>")
        assert "the reason" in str(site.records.records[-1].exc_info)


@BOTH
def test_early_hints_come_first(kind: Any) -> None:
    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        start_response("200 OK", [("Content-Length", "0")])
        return []

    with serve(kind, application) as site:
        answer = site.ask(GET)
        old = site.ask(OLD)

    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert old.startswith(b"HTTP/1.0 200 OK\r\n")


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


# --- files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4000)
    return path


def sends(open_file: Callable[[], Any], *, length: int | None = None, prefix: bytes = b"") -> Any:
    def application(environ: dict[str, Any], start_response: Start) -> Any:
        headers = [] if length is None else [("Content-Length", str(length))]
        write = start_response("200 OK", headers)
        if prefix:
            write(prefix)
        return environ["wsgi.file_wrapper"](open_file())

    return application


def body_of(kind: Any, application: Any, data: bytes = GET) -> bytes:
    with serve(kind, application) as site, site.connect() as client:
        client.send(data)
        return client.answer().body


@BOTH
@pytest.mark.parametrize("data", [GET, OLD], ids=["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("offset", [0, 1, 5000, 1_023_999, 1_024_000])
def test_file_is_sent_from_where_it_stands(kind: Any, file: Path, offset: int, data: bytes) -> None:
    def open_file() -> Any:
        opened = file.open("rb")
        opened.seek(offset)
        return opened

    assert body_of(kind, sends(open_file), data) == file.read_bytes()[offset:]


@BOTH
def test_part_of_a_file_is_sent(kind: Any, file: Path) -> None:
    def open_file() -> Any:
        opened = file.open("rb")
        opened.seek(300)
        return opened

    assert body_of(kind, sends(open_file, length=5000)) == file.read_bytes()[300:5300]


def test_file_that_was_read_from_is_sent_from_there(file: Path) -> None:
    def open_file() -> Any:
        opened = file.open("rb")
        opened.read(10)  # 8 KiB are in its buffer now
        return opened

    assert body_of(Ours, sends(open_file)) == file.read_bytes()[10:]


def test_rest_of_a_body_can_be_a_file(file: Path) -> None:
    size = file.stat().st_size
    assert body_of(Ours, sends(lambda: file.open("rb"), length=size + 3, prefix=b"abc")) == b"abc" + file.read_bytes()


def test_file_shorter_than_its_length_breaks_the_connection(file: Path) -> None:
    with serve(Ours, sends(lambda: file.open("rb"), length=2_000_000)) as site:
        assert site.ask(GET).endswith(b"<reset>")


@pytest.mark.parametrize("kind_of_file", ["BytesIO", "gzip", "temporary", "pipe", "object"])
def test_what_only_looks_like_a_file_is_read(file: Path, kind_of_file: str, tmp_path: Path) -> None:
    content = file.read_bytes()

    def open_file() -> Any:
        if kind_of_file == "BytesIO":
            return io.BytesIO(content)
        if kind_of_file == "gzip":
            (tmp_path / "gz").write_bytes(gzip.compress(content))
            return gzip.open(tmp_path / "gz")
        if kind_of_file == "temporary":
            temporary = tempfile.NamedTemporaryFile()
            temporary.write(content)
            temporary.seek(0)
            return temporary
        if kind_of_file == "pipe":
            reader, writer = os.pipe()
            os.write(writer, b"in a pipe")
            os.close(writer)
            return open(reader, "rb")
        return type("Odd", (), {"read": io.BytesIO(content).read, "fileno": lambda self: 1})()

    assert body_of(Ours, sends(open_file)) == (b"in a pipe" if kind_of_file == "pipe" else content)


@BOTH
def test_head_of_a_file_has_no_body(kind: Any, file: Path) -> None:
    with serve(kind, sends(lambda: file.open("rb"), length=1_024_000)) as site:
        answer = site.ask(HEAD + HEAD)

    assert answer.count(b"Content-Length: 1024000\r\n") == 2
    assert answer.endswith(b"\r\n\r\n")


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


def test_file_is_closed_once(file: Path) -> None:
    closed = []

    class File(io.FileIO):
        def close(self) -> None:
            if not self.closed:
                closed.append(self)
            super().close()

    assert body_of(Ours, sends(lambda: File(str(file)))) == file.read_bytes()
    assert len(closed) == 1


# --- PEP 3333, by somebody else's judgement


@pytest.mark.parametrize(
    "data",
    [
        GET,
        OLD,
        HEAD,
        b"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET http://h/p HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\nCookie: a=b\r\n\r\n",
    ],
)
def test_validator_finds_nothing(data: bytes, recwarn: pytest.WarningsRecorder) -> None:
    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        source = environ["wsgi.input"]
        body = source.readline(2) + source.read(1) + b"".join(source) + b"".join(source.readlines())
        environ["wsgi.errors"].write("")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    with serve(Ours, wsgiref.validate.validator(application)) as site:
        answer = site.ask(data)

        assert b" 200 OK\r\n" in answer
        assert site.records.at(logging.ERROR) == []


def test_response_begins_with_what_gunicorns_begins_with() -> None:
    """Ours does not call gunicorn's constructor: what that sets for each response are defaults of the class here."""
    cfg, request = Config(), object()

    theirs = vars(GunicornResponse(request, None, cfg))
    ours = Response(request, None, cfg, None)  # type: ignore[arg-type]

    assert {name: getattr(ours, name) for name in theirs} == theirs
    assert ours.headers is not Response(request, None, cfg, None).headers  # type: ignore[arg-type]


HEADERS_TWICE: list[list[Any]] = [
    [("Content-Length", "2"), ("X-A", "b")],
    [("content-length", " 2 "), ("X-A", " b\t")],
    [("Content-Length", "2"), ("Content-Length", "2")],
    [("Content-Length", "2"), ("Content-Length", "3")],
    [("Content-Length", "-2")],
    [("Connection", "close"), ("Content-Length", "2")],
    [["X-A", "b"], ("Content-Length", "2")],
    [("X-A", ["b"])],
    [("X-A", b"b")],
    [("X-A", "b\nc")],
    [("X-A", "b", "c")],
]


@pytest.mark.parametrize("headers", HEADERS_TWICE, ids=str)
def test_headers_that_come_again_are_judged_as_the_first_time(headers: list[Any]) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", headers)
        return [b"ok"]

    def answer() -> bytes:
        return DATE.sub(b"", site.ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))

    with serve(Ours, application) as site:
        first, second = answer(), answer()

    assert second == first
    assert first.startswith((b"HTTP/1.1 200", b"HTTP/1.1 500"))


@pytest.mark.parametrize("name", ["X-Request-ID", "x-request-id"])
@pytest.mark.parametrize("value", ["mine", "mïne"])
def test_an_id_that_the_application_gives_is_the_only_one_each_time(name: str, value: str) -> None:
    for _ in range(3):  # the second time all else about the header is known
        ours = Response(PlainRequest({"REQUEST_METHOD": "GET"}, is_kept_alive=True), None, Config(), NoBody())  # type: ignore[arg-type]
        ours.account = Account(0.0)
        ours.account.id = "made"
        ours.start_response("200 OK", [(name, value), ("Content-Length", "0")])

        ids = [line for line in ours._head().split(b"\r\n") if line.lower().startswith(b"x-request-id:")]

        assert ids == [f"{name}: {value}".encode("latin-1")]


def test_headers_of_applications_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[tuple[str, str], int | None] = {}
    monkeypatch.setattr(response, "_checked_headers", known)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        tags = [("ETag", f'"{number}"') for number in range(REMEMBERED_NAMES + 10)]
        secrets = [("Set-Cookie", "session=secret"), ("X-Long", "y" * 5000)]
        start_response("200 OK", [("Content-Length", "0"), *tags, *secrets, *tags, *secrets])
        return []

    with serve(Ours, application) as site:
        site.ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert 0 < len(known) <= REMEMBERED_NAMES
    assert {name for name, _ in known} <= {"ETag", "Content-Length"}


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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
def test_a_file_of_proc_is_read() -> None:
    assert b"Name:" in body_of(Ours, sends(lambda: open("/proc/self/status", "rb")))
