"""Whole connections: generated streams of requests, cut anywhere, mean what gunicorn's parser says they mean."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader
from hypothesis import given
from hypothesis import strategies as st

from greenroom.worker.ending import error_answer
from greenroom.worker.head import demand

from .fuzz import examples
from .harness import Ours, Site, Worker, serve, without_date

PEER = ("127.0.0.1", 40000)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Entries that belong to the connection or to the response, not to the request.
ELSEWHERE = ("wsgi.input", "wsgi.errors", "wsgi.early_hints", "gunicorn.socket", "REMOTE_PORT", "SERVER_PORT")

Seen = tuple[dict[str, Any], bytes]


class App:
    """Reads the body in one of several ways and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        source = environ["wsgi.input"]
        if environ["QUERY_STRING"] == "lines":
            body = b"".join(source)
        elif environ["QUERY_STRING"] == "bytes":
            body = b"".join(iter(lambda: source.read(1), b""))
        else:
            body = source.read()
        self.seen.append((plain(environ), body))
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


def plain(environ: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in environ.items() if key not in ELSEWHERE and not key.startswith("greenroom.")}


class Cut(Exception):
    """The stream ends within a body."""


class Stream(Unreader):  # type: ignore[misc]
    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.buf.write(data)
        self.is_body = False

    def chunk(self, size_hint: int | None = None) -> bytes:
        if self.is_body:
            raise Cut
        return b""


class Reference:
    """gunicorn's parser on a stream: the requests that the application sees, and how it ends."""

    def __init__(self, data: bytes, worker: Worker, server: tuple[str, int]) -> None:
        cfg = worker.cfg
        self.seen: list[Seen] = []
        self.statuses: list[bytes] = []
        self.last_words = b""
        stream = Stream(data)
        request = None
        try:
            while request is None or not request.should_close():
                stream.is_body = False
                request = None
                request = Request(cfg, stream, PEER, len(self.seen) + 1)
                demand(request)
                request._expected_100_continue = False
                _, environ = wsgi.create(request, None, PEER, server, cfg)
                environ["wsgi.multithread"] = True
                stream.is_body = True
                body = request.body.read()
                self.seen.append((plain(environ), body))
        except (StopIteration, NoMoreData):
            pass
        except Cut:
            self.last_words = error_answer(400, "Bad Request", "the client left before its body was complete")
        except Exception as exc:
            worker.handle_error(None, self, PEER, exc)

    def gettimeout(self) -> float:
        return 0.0

    def sendall(self, data: bytes) -> None:
        self.last_words += data


MOST_PIECES = 100
# How often a byte is read by gunicorn's parser, at most: once with the head it is in, whole; with that head's first
# piece, and each time it has doubled; and with each of the requests before it that came in the same packet.
MOST_TIMES_READ = 8


class Counted(Request):  # type: ignore[misc]
    """gunicorn's parser, for those who count how much it is given to read."""

    read_bytes_count = 0

    def __init__(self, cfg: Any, unreader: Any, *args: Any) -> None:
        Counted.read_bytes_count += unreader.buf.getbuffer().nbytes
        super().__init__(cfg, unreader, *args)


CODINGS = [b"chunked"] * 6 + [b"Chunked", b"gzip, chunked", b"x"]
NAMES = ["X-A", "x-b", "Accept", "Cookie", "Content-Type", "X_Y", "X-Forwarded-Proto", "TE", "Upgrade", "Trailer"]
VALUES = ["", "a", "text/plain", "a, b", "https", "\tx ", "caf\xe9", "a\x01", "trailers", "h2c"]
TARGETS = [
    "/",
    "/?lines",
    "/?bytes",
    "/a%20b?x=1",
    "//d",
    "/a;b#c",
    "*",
    "http://h/p?q",
    "https://h:1",
    "h:80",
    "",
    "/\x7f",
]


@st.composite
def chunked(draw: Any) -> bytes:
    body = b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4)):
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"00000%x"])) % len(data)
        extension = draw(st.sampled_from([b"", b"", b"", b";a", b";a=b", b' ; a="b"', b";a=", b" ", b";\r"]))
        end = draw(st.sampled_from([b"\r\n"] * 12 + [b"\n", b"", b"\r"]))
        body += size + extension + b"\r\n" + data + end
    trailers = draw(st.sampled_from([b"", b"", b"X-T: y\r\n", b"Content-Length: 3\r\n", b"X_T: y\r\n", b"bad\r\n"]))
    return body + b"0\r\n" + trailers + b"\r\n"


@st.composite
def request_bytes(draw: Any) -> bytes:
    method = draw(st.sampled_from(["GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "CONNECT", "PURGE"]))
    target = draw(st.sampled_from(TARGETS)) if draw(st.integers(0, 3)) == 0 else "/?lines"
    version = draw(st.sampled_from(["HTTP/1.1"] * 9 + ["HTTP/1.0"]))
    lines = [f"{method} {target} {version}".encode("latin-1")]
    if draw(st.integers(0, 15)):
        lines.append(b"Host: " + draw(st.sampled_from([b"x", b"x:80", b"[::1]:8", b"a b"])))
    for _ in range(draw(st.integers(0, 3))):
        line = f"{draw(st.sampled_from(NAMES))}: {draw(st.sampled_from(VALUES))}"
        lines.append(line.encode("latin-1"))
    connection = draw(st.sampled_from(["", "", "", "close", "keep-alive", "Keep-Alive", "TE, close", "x"]))
    if connection:
        lines.append(b"Connection: " + connection.encode())
    body = b""
    framing = draw(st.sampled_from(["none", "none", "length", "length", "chunked", "both", "wrong"]))
    if framing in ("length", "both"):
        body = draw(st.binary(max_size=100))
        lines.append(b"Content-Length: %d" % len(body))
    if framing == "wrong":
        lines.append(b"Content-Length: " + draw(st.sampled_from([b"", b"-1", b"+1", b"1,1", b"9" * 19, b"1 1"])))
    if framing in ("chunked", "both"):
        body = draw(chunked())
        lines.append(
            b"Transfer-Encoding: " + draw(st.sampled_from([b"chunked"] * 6 + [b"Chunked", b"gzip, chunked", b"x"]))
        )
    if body and draw(st.integers(0, 9)) == 0:
        lines.append(b"Expect: 100-continue")
    lines = [lines[0], *draw(st.permutations(lines[1:])), *draw(long_fields())]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@st.composite
def long_fields(draw: Any) -> list[bytes]:
    """Mostly none; else a head of up to 300 KB, or one with a field or a number of fields over the limit."""
    if draw(st.integers(0, 9)):
        return []
    sizes = draw(st.lists(st.sampled_from([10, 3000, 8000, 8000, 9000]), min_size=1, max_size=40))
    return [b"X-Long-%d: %s" % (number, b"y" * size) for number, size in enumerate(sizes)]


@st.composite
def streams(draw: Any) -> list[bytes]:
    """Pieces of a stream of requests; often valid, sometimes with bytes that are changed, lost or doubled."""
    data = b"".join(draw(st.lists(request_bytes(), min_size=1, max_size=4)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 1, 2, 5]))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["replace", "insert", "delete", "double", "end"]))
        byte = draw(st.sampled_from([b"\r", b"\n", b"\0", b" ", b":", b"_", b"\xff", b"0", b"\r\n", b"\t"]))
        tail = {
            "replace": byte + data[at + 1 :],
            "insert": byte + data[at:],
            "delete": data[at + 1 :],
            "double": data[at : at + 9] + data[at:],
            "end": b"",
        }
        data = data[:at] + tail[kind]
    if draw(st.integers(0, 3)):
        cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    else:
        cuts = list(range(1, len(data), max(1, len(data) // MOST_PIECES)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.fixture(scope="module")
def app() -> App:
    return App()


@pytest.fixture(scope="module")
def site(app: App) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch, serve(Ours, app) as site:
        patch.setattr("greenroom.worker.connection.Request", Counted)
        yield site


@given(pieces=streams())
@examples(150)
def test_a_stream_is_served_and_refused_as_gunicorn_would(site: Site, app: App, pieces: list[bytes]) -> None:
    app.seen.clear()
    site.records.records.clear()
    Counted.read_bytes_count = 0

    answer = without_date(site.ask(*pieces)).replace(CONTINUE, b"")

    expected = Reference(b"".join(pieces), site.kind.worker, site.address)
    assert app.seen == expected.seen
    # Only the reason may differ: of two faults in a head, the one that comes first is seen first.
    last = answer[answer.rfind(b"HTTP/1.1 ", 0, answer.rfind(b"Connection: close")) :] if expected.last_words else b""
    assert last[:12] in (expected.last_words[:12], b"HTTP/1.1 400"[: len(expected.last_words)])
    assert answer.count(b" 200 OK\r\nServer: gunicorn\r\n") == len(expected.seen)
    assert site.records.at(logging.ERROR) == []
    assert not site.kind.serving.in_flight
    # Time that the hub is held is work, and how long it takes is the machine's: so the work is counted.
    assert Counted.read_bytes_count <= MOST_TIMES_READ * sum(map(len, pieces))
