"""The head of a stream: header fields in, a request and its environ out.

Written as the head of HTTP/1.1 that means the same, nearly all go the way of plain heads, with all that is remembered
there (see head). gunicorn's own class for HTTP/2 judges the others, so what it accepts or refuses is accepted or
refused.
"""

from typing import Any

from gunicorn.http2.request import HTTP2Request

from ..head import HeadParser
from ..request import PlainRequest
from ..transport import Peer

SCHEMES = {b"http": "http", b"https": "https"}
Fields = list[tuple[bytes, bytes]]


class StreamRequest(PlainRequest):
    """A plain request that came as a stream."""

    __slots__ = ("_trailers",)
    version = (2, 0)

    def force_close(self) -> None:
        """The connection is told by itself."""


def plain_request(
    fields: Fields, parser: HeadParser, base: dict[str, Any], *, peer_is_trusted: bool
) -> StreamRequest | None:
    """The request over a copy of `base`; None when its head is not plain."""
    method = path = authority = b""
    lines = [b""]
    for name, value in fields:
        if name[:1] != b":":
            if b":" in name or name == b"host":
                return None
            lines.append(name + b": " + value)
        elif name == b":method":
            method = value
        elif name == b":path":
            path = value
        elif name == b":authority":
            authority = value
        elif name == b":scheme" and value in SCHEMES:
            if peer_is_trusted and SCHEMES[value] != base["wsgi.url_scheme"]:  # a proxy says what its client uses
                base = base | {"wsgi.url_scheme": SCHEMES[value]}
        else:
            return None
    if not authority:
        return None
    lines[0] = b"%b %b HTTP/1.1\r\nhost: %b" % (method, path, authority)
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if head.count(b"\n") != len(lines) + 2:  # a value with a line end would be another field
        return None
    request = parser.parse(head, base, peer_is_trusted=peer_is_trusted)
    if request is None:
        return None
    return StreamRequest(request.environ, is_kept_alive=True, content_length=request.content_length)


class GunicornStream:
    """The stream as gunicorn's request sees it."""

    connection = None
    expect_continue = False

    def __init__(self, stream_id: int, fields: Fields, trailers: list[tuple[str, str]], priority: Any) -> None:
        """`trailers` is filled when they come. Raises UnicodeDecodeError."""
        self.stream_id = stream_id
        self.fields = [(name.decode("utf-8"), value.decode("utf-8")) for name, value in fields]
        self.trailers = trailers
        self.priority_weight, self.priority_depends_on = priority

    def get_pseudo_headers(self) -> dict[str, str]:
        return {name: value for name, value in self.fields if name.startswith(":")}

    def get_regular_headers(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.fields if not name.startswith(":")]


def gunicorns_request(stream: GunicornStream, cfg: Any, peer: Peer) -> Any:
    """Raises ParseException, ValueError."""
    return HTTP2Request(stream, cfg, peer)
