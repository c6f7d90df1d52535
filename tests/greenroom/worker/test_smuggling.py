"""Requests on whose length two programs could disagree: refused, the connection closed, nothing after them served."""

from collections.abc import Iterator
from typing import Any

import pytest

from .harness import Ours, Site, Stock, serve

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
H = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = H + b"Transfer-Encoding: chunked\r\n\r\n"

HEADS = {
    "Content-Length and chunked": H + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and Content-Length": H + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunked twice": H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, chunked": H + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked, then identity": H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked, gzip": H + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "identity alone": H + b"Transfer-Encoding: identity\r\n\r\n",
    "identity and a length": H + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nabcde",
    "gzip alone": H + b"Transfer-Encoding: gzip\r\n\r\n",
    "an unknown coding": H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "an unknown coding and a length": H + b"Transfer-Encoding: cow\r\nContent-Length: 5\r\n\r\nabcde",
    "a quoted coding": H + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "an empty coding": H + b"Transfer-Encoding:\r\n\r\n",
    "an empty coding in the list": H + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "a coding with a parameter": H + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "a vertical tab before the coding": H + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a form feed after the coding": H + b"Transfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n",
    "a no-break space before the coding": H + b"Transfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n",
    "NUL in the coding": H + b"Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n",
    "a space before the colon": H + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a tab before the colon": H + b"Content-Length\t: 5\r\n\r\nabcde",
    "a space before the name": H + b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding with an underscore": H + b"Content-Length: 5\r\nTransfer_Encoding: chunked\x00\r\n\r\nabcde",
    "a folded coding": H + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded header": H + b"X: a\r\n b\r\nContent-Length: 5\r\n\r\nabcde",
    "a fold after the request line": b"GET / HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n",
    "a bare CR in a value": H + b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare LF in a value": H + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare CR as the end of a line": b"POST / HTTP/1.1\r\nHost: x\rContent-Length: 5\r\n\r\nabcde",
    "CR CR LF": H + b"X: a\r\r\nContent-Length: 5\r\n\r\nabcde",
    "bare LF everywhere": b"POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nabcde",
    "bare LF at the end of the head": H + b"Content-Length: 5\r\n\nabcde",
    "bare LF after the request line": b"GET / HTTP/1.1\nHost: x\r\n\r\n",
    "NUL in a value": H + b"X: a\x00b\r\n\r\n",
    "NUL in a name": H + b"X\x00: a\r\n\r\n",
    "no name": H + b": a\r\n\r\n",
    "no colon": H + b"Content-Length 5\r\n\r\nabcde",
    "a name alone": H + b"Content-Length\r\n\r\nabcde",
    "two lengths": H + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "the same length twice": H + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "a list of lengths": H + b"Content-Length: 5, 5\r\n\r\nabcde",
    "a length with plus": H + b"Content-Length: +5\r\n\r\nabcde",
    "a negative length": H + b"Content-Length: -5\r\n\r\nabcde",
    "a length with a space": H + b"Content-Length: 1 0\r\n\r\nabcde",
    "a length with an underscore": H + b"Content-Length: 1_0\r\n\r\nabcde",
    "a hexadecimal length": H + b"Content-Length: 0x5\r\n\r\nabcde",
    "a length with a point": H + b"Content-Length: 5.0\r\n\r\nabcde",
    "an empty length": H + b"Content-Length:\r\n\r\nabcde",
    "a superscript length": H + b"Content-Length: \xb2\r\n\r\nab",
    "a length of 5,000 digits": H + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabcde",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "chunked under HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\nHost: x\r\n\r\n",
    "a small http": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "two spaces in the request line": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a high byte in the target": b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bare CR in the target": b"GET /\rX HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space at the end of the request line": b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    "a method with a NUL": b"GE\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a small method": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority-form without CONNECT": b"GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "* without OPTIONS": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "two empty lines first": b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bare LF first": b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}
# gunicorn lets these pass; RFC 9112 3.2 says MUST answer 400.
ONLY_OURS = {
    "no host": b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
    "no header at all": b"GET / HTTP/1.1\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: me@x\r\n\r\n",
    "a host with a space": b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n",
    "a host that is two": b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n",
    "a host with letters for a port": b"GET / HTTP/1.1\r\nHost: x:http\r\n\r\n",
    "a host with a high byte": b"GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n",
    "an absolute target without a host": b"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target with a user": b"GET http://me@x/a HTTP/1.1\r\nHost: x\r\n\r\n",
}
BODIES = {
    "a size that is no number": CHUNKED + b"xyz\r\nabc\r\n0\r\n\r\n",
    "a size with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a size with plus": CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "a negative size": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a size with an underscore": CHUNKED + b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n",
    "a space before the size": CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n",
    "a space after the size": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "no size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "an extension without a size": CHUNKED + b";a=b\r\nabc\r\n0\r\n\r\n",
    "a bare LF after the size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "a bare CR after the size": CHUNKED + b"3\rabc\r\n0\r\n\r\n",
    "a bare CR in the extension": CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "a bare LF in the extension": CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "an extension that is none": CHUNKED + b"3;a=\r\nabc\r\n0\r\n\r\n",
    "an extension with an open quote": CHUNKED + b'3;a="b\r\nabc\r\n0\r\n\r\n',
    "a chunk without its CRLF": CHUNKED + b"3\r\nabc0\r\n\r\n",
    "a chunk that ends in LF": CHUNKED + b"3\r\nabc\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk shorter than it says": CHUNKED + b"5\r\nabc\r\n0\r\n\r\n",
    "a length in the trailers": CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a coding in the trailers": CHUNKED + b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a host in the trailers": CHUNKED + b"3\r\nabc\r\n0\r\nHost: y\r\n\r\n",
    "authorization in the trailers": CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Basic eDp5\r\n\r\n",
    "a bare LF in the trailers": CHUNKED + b"3\r\nabc\r\n0\r\nX: y\nZ: z\r\n\r\n",
    "a fold in the trailers": CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n",
    "an endless extension": CHUNKED + b"3;a=" + b"b" * 20_000,
}


class Echo:
    """Reads all of the body and remembers what it was asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.paths.append(environ["PATH_INFO"])
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module", params=[Ours, Stock], ids=lambda kind: kind.name)
def site(request: pytest.FixtureRequest, echo: Echo) -> Iterator[Site]:
    with serve(request.param, echo) as site:
        yield site


@pytest.fixture(scope="module")
def our_site(echo: Echo) -> Iterator[Site]:
    with serve(Ours, echo) as site:
        yield site


@pytest.mark.parametrize("data", [*HEADS.values(), *BODIES.values()], ids=[*HEADS, *BODIES])
def test_ambiguous_request_is_refused_and_nothing_after_it_is_served(site: Site, echo: Echo, data: bytes) -> None:
    echo.paths.clear()

    answer = site.ask(data + SMUGGLED)

    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 431 "))
    assert answer.count(b"Connection: ") == 1
    assert b"Connection: close\r\n" in answer
    assert "/smuggled" not in echo.paths


@pytest.mark.parametrize("data", ONLY_OURS.values(), ids=ONLY_OURS)
def test_request_for_no_certain_host_is_refused(our_site: Site, echo: Echo, data: bytes) -> None:
    echo.paths.clear()

    answer = our_site.ask(data + SMUGGLED)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Connection: close\r\n" in answer
    assert echo.paths == []


@pytest.mark.parametrize("data", [*HEADS.values(), *ONLY_OURS.values()], ids=[*HEADS, *ONLY_OURS])
def test_refusal_does_not_depend_on_how_the_bytes_come(our_site: Site, echo: Echo, data: bytes) -> None:
    echo.paths.clear()
    data = data[:400]  # one is long, and its beginning is as wrong

    answer = our_site.ask(*(bytes([byte]) for byte in data + SMUGGLED[:3]))

    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")) or len(data) == 400
    assert echo.paths == []
