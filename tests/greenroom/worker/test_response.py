# ruff: noqa: E501  the tables read better with a case on a line
"""Answers of an application, and how they go over the wire.

DIFFERENCES lists where the stock gevent worker answers otherwise. Everything else here holds for both.
"""

import logging
import wsgiref.validate
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response as GunicornResponse

from greenroom.insight.account import Account
from greenroom.worker import response
from greenroom.worker.request import PlainRequest
from greenroom.worker.response import REMEMBERED_NAMES, Response

from .answers import GET, HEAD, OLD, Start, answers
from .harness import BOTH, DATE, Ours, Stock, serve

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


@BOTH
@pytest.mark.parametrize(("asked", "taken_for", "body"), [("HEAD", "GET", b""), ("POST", "HEAD", b"abcd")])
def test_method_that_a_middleware_puts_into_the_environ_does_not_frame_the_answer(
    kind: Any, asked: str, taken_for: str, body: bytes
) -> None:
    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        environ["REQUEST_METHOD"] = taken_for
        start_response("200 OK", [("Content-Length", "4")])
        return [b"abcd"]

    with serve(kind, application) as site:
        answer = site.ask(GET.replace(b"GET", asked.encode()) * 2)

    assert [rest.partition(b"\r\n\r\n")[2] for rest in answer.split(b"HTTP/1.1 200 OK")[1:]] == [body, body]


@BOTH
def test_error_of_an_application_that_emptied_the_environ_is_a_500(kind: Any) -> None:
    def application(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        environ.clear()
        raise ValueError

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
