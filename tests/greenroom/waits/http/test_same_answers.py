"""Whatever an upstream sends, and however it is read: with our adapter `requests` makes of it what it always did."""

import gzip
import io
import re
import zlib
from collections.abc import Callable
from itertools import islice
from typing import Any

import brotli
import pytest
import requests
import urllib3

from .conftest import ADAPTERS, Switch
from .upstream import Upstream, answer, reset, sends

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TEXT = "Grüße, 世界\n".encode() * 400
ANSWERS = {
    "with a length": answer(b"hello", "200 OK", "Content-Type: text/plain; charset=utf-8"),
    "json": answer(b'{"a": 1}', "200 OK", "Content-Type: application/json"),
    "long": answer(TEXT * 9, "200 OK", "Content-Type: text/plain"),
    "empty": answer(b""),
    "chunked": CHUNKED + b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\n\r\n",
    "chunked plainly": CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    "one big chunk": CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(TEXT), TEXT),
    "no chunks": CHUNKED + b"0\r\n\r\n",
    "chunked with a trailer": CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n",
    "gzip": answer(gzip.compress(TEXT), "200 OK", "Content-Encoding: gzip", "Content-Type: text/html"),
    "gzip in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (gzip.compress(TEXT)[:20], gzip.compress(TEXT)[20:]))
    + b"0\r\n\r\n",
    "deflate": answer(zlib.compress(TEXT), "200 OK", "Content-Encoding: deflate"),
    "br": answer(brotli.compress(TEXT), "200 OK", "Content-Encoding: br"),
    "two encodings": answer(zlib.compress(gzip.compress(TEXT)), "200 OK", "Content-Encoding: gzip, deflate"),
    "an unknown encoding": answer(b"hello", "200 OK", "Content-Encoding: secret"),
    "gzip that is none": answer(b"hello", "200 OK", "Content-Encoding: gzip"),
    "gzip cut short": answer(gzip.compress(TEXT)[:-9], "200 OK", "Content-Encoding: gzip"),
    "not found": answer(b"nothing here", "404 Not Found"),
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified, with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
    "after 100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"ok"),
    "until the end": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it",
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "of HTTP/1.0, kept": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "closed after it": answer(b"bye", "200 OK", "Connection: close"),
    "fields twice": answer(b"", "200 OK", "X-A: 1", "x-a: 2", "Link: <a>", "Link: <b>", "X-Empty: "),
    "cookies": answer(b"", "200 OK", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2; HttpOnly"),
    "folded field": b"HTTP/1.1 200 OK\r\nX-Long: one\r\n  two\r\nContent-Length: 2\r\n\r\nok",
    "bare newlines": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "field without a colon": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok",
    "field with a space before the colon": b"HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 2\r\n\r\nok",
    "latin-1 field": b"HTTP/1.1 200 Sch\xf6n\r\nX-Name: J\xfcrgen\r\nContent-Length: 2\r\n\r\nok",
    "spaces round a value": b"HTTP/1.1 200 OK\r\nX-A: \t 1 \r\nContent-Length: 2\r\n\r\nok",
    "the same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "a length that is a word": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "a length of 5,000 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nok",
    "a length in other digits": "HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nok".encode("latin-1"),
    "length and chunks": CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "gzip as transfer encoding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "less than it said": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
    "nothing of what it said": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
    "chunks without an end": CHUNKED + b"5\r\nhello\r\n",
    "chunk cut short": CHUNKED + b"ff\r\nhello",
    "chunk size that is none": CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n",
    "chunk longer than it said": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status that is none": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
    "a status too small": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "nothing": b"",
    "a thousand fields": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(1000)) + b"\r\n",
    "a hundred fields": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(99))
    + b"Content-Length: 2\r\n\r\nok",
    "a field of 70,000 bytes": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "a field of 60,000 bytes": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 60_000 + b"\r\nContent-Length: 2\r\n\r\nok",
}  # fmt: skip


def as_content(response: requests.Response) -> Any:
    return response.content, response.encoding, response.text if response.encoding else None


def at_a_time(count: int) -> Callable[[requests.Response], Any]:
    def read(response: requests.Response) -> Any:
        pieces = [response.raw.read(count)]
        while pieces[-1]:
            pieces.append(response.raw.read(count))
        return pieces, response.raw.closed, response.raw.tell()

    return read


def mixed(response: requests.Response) -> Any:
    """The rests of half-read responses, as later reads get them."""
    stream = response.raw.stream(10_240)
    first = next(stream, None)
    return first, response.raw.read(3), list(stream), response.raw.read()


def as_file(response: requests.Response) -> Any:
    response.raw.decode_content = True
    response.raw.auto_close = False
    return list(io.BufferedReader(response.raw))


def not_at_all(response: requests.Response) -> Any:
    response.close()
    return response.raw.closed, response.raw.read()


WAYS: dict[str, Callable[[requests.Response], Any]] = {
    "content": as_content,
    "iter_content(1000)": lambda response: list(response.iter_content(1000)),
    "iter_content(3)": lambda response: list(islice(response.iter_content(3), 20)),
    "iter_content(None)": lambda response: list(response.iter_content(None)),
    "iter_lines()": lambda response: list(response.iter_lines()),
    "raw.read()": lambda response: (response.raw.read(), response.raw.read(), response.raw.closed),
    "raw.read(decode_content=True)": lambda response: response.raw.read(decode_content=True),
    "raw.read(7)": at_a_time(7000),
    "raw.read1()": lambda response: (response.raw.read1(4), b"".join(iter(response.raw.read1, b""))),
    "raw.stream(None)": lambda response: list(response.raw.stream(None)),
    "raw.data": lambda response: (response.raw.data, response.raw.data),
    "mixed": mixed,
    "as a file": as_file,
    "not at all": not_at_all,
}


def outcome(url: str, way: str, method: str = "GET") -> Any:
    """Everything that a caller can see of a request, or the error that he gets."""
    with requests.Session() as session:
        try:
            with session.request(method, url, stream=way != "content", timeout=10) as response:
                # Data that was read says the same as before it was.
                seen = [visible(response, session), WAYS[way](response)]
                return [*seen, visible(response, session)]
        except Exception as exc:
            return [chain(exc)]


def visible(response: requests.Response, session: requests.Session) -> Any:
    raw = response.raw
    return {
        "status": (response.status_code, response.reason, response.ok, response.is_redirect),
        "fields": list(response.headers.items()),
        "cookies": (response.cookies.get_dict(), session.cookies.get_dict()),
        "encoding": response.encoding,
        "raw": (
            raw.status,
            raw.reason,
            raw.version,
            getattr(raw, "version_string", ""),
            raw.chunked,
            raw.length_remaining,
        ),
        "raw fields": (list(raw.headers.items()), raw.headers.getlist("link"), raw.headers.get("content-type")),
        "message": raw._original_response.msg.items(),
        "is_response": isinstance(raw, urllib3.HTTPResponse),
        "retries": raw.retries.total,
        "links": response.links,
    }


def chain(exc: BaseException | None) -> list[str]:
    """The error and what it came from, without addresses of objects and ports."""
    said = []
    while exc is not None and len(said) < 2:
        text = re.sub(r"0x[0-9a-f]+|port=\d+", "", f"{type(exc).__name__}: {exc}")
        said.append(text)
        exc = exc.args[0] if exc.args and isinstance(exc.args[0], BaseException) else None
    return said


@pytest.mark.filterwarnings("ignore:.*:urllib3.exceptions.DependencyWarning")
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_as_ever(
    name: str, switch: Switch, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    url = upstream.on("/", sends(ANSWERS[name], then="close"))
    seen: dict[str, Any] = {}

    for adapter in ADAPTERS:
        switch.to(adapter)
        seen[adapter] = {way: outcome(url, way) for way in WAYS}
        seen[adapter]["log"] = [(each.name, each.levelname, each.getMessage()) for each in caplog.records]
        caplog.clear()

    assert seen["ours"] == seen["original"]
    assert not switch.fell_back


@pytest.mark.parametrize("name", [name for name, whole in ANSWERS.items() if len(whole) < 20_000][::2])
def test_an_answer_in_many_small_pieces_is_read_as_ever(name: str, switch: Switch, upstream: Upstream) -> None:
    whole = ANSWERS[name]
    step = max(1, len(whole) // 7)
    pieces = [whole[start : start + step] for start in range(0, len(whole), step)]
    url = upstream.on("/", sends(*pieces, pause_seconds=0.002, then="close"))
    seen: dict[str, Any] = {}

    for adapter in ADAPTERS:
        switch.to(adapter)
        seen[adapter] = {way: outcome(url, way) for way in ("content", "raw.read()", "iter_content(None)")}

    assert seen["ours"] == seen["original"]


@pytest.mark.parametrize("name", ["with a length", "chunked", "empty", "gzip", "not found", "cookies", "until the end"])
def test_the_answer_to_head_is_read_as_ever(name: str, switch: Switch, upstream: Upstream) -> None:
    head = ANSWERS[name].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    url = upstream.on("/", head)
    seen: dict[str, Any] = {}

    for adapter in ADAPTERS:
        switch.to(adapter)
        seen[adapter] = {way: outcome(url, way, "HEAD") for way in WAYS}

    assert seen["ours"] == seen["original"]


def test_a_reset_within_the_body_is_the_same_error(switch: Switch, upstream: Upstream) -> None:
    url = upstream.on("/", sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", then="reset"))
    seen = {}

    for adapter in ADAPTERS:
        switch.to(adapter)
        seen[adapter] = [outcome(url, way)[-1][0].partition("(")[0] for way in ("content", "iter_content(1000)")]

    assert seen["ours"] == seen["original"]


def test_a_reset_before_the_head_is_the_same_error(switch: Switch, upstream: Upstream) -> None:
    def script(sock: Any, request: Any) -> bool:
        reset(sock)
        return False

    url = upstream.on("/", script)
    seen = {}

    for adapter in ADAPTERS:
        switch.to(adapter)
        seen[adapter] = outcome(url, "content")

    assert seen["ours"] == seen["original"]
    assert seen["ours"][0][0].startswith("ConnectionError: ('Connection aborted.', ConnectionResetError")


@pytest.mark.parametrize("field", ["Content-Type: application/json", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("cut_at", [5, 17, 40, 45])
def test_an_end_within_the_head_is_the_same(cut_at: int, field: str, switch: Switch, upstream: Upstream) -> None:
    whole = answer(b"hello", "200 OK", field)
    url = upstream.on("/", sends(whole[:cut_at], then="close"))
    seen = {}

    for adapter in ADAPTERS:
        switch.to(adapter)
        seen[adapter] = outcome(url, "content")

    assert seen["ours"] == seen["original"]


def test_103_early_hints_are_passed_over(ours: object, upstream: Upstream) -> None:
    """Not as ever: http.client takes them for the answer."""
    url = upstream.on("/", b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + answer(b"the answer"))

    assert [requests.get(url, timeout=10).text for _ in range(2)] == ["the answer"] * 2
    assert upstream.connections == 1
