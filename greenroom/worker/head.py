"""The head of a request: bytes in, a WSGI environ out.

Two ways, and the result is the same (a differential test on generated requests holds them together):

1. A plain head: nothing but printable ASCII and CRLF, a common method, an origin-form target, HTTP/1.1, header names
   without `_`, none of them twice, no transfer coding, no expectation. That is nearly every request there is. One pass
   of string methods makes the environ. Clients mostly send the same header fields again and again, so what the fields
   of a head mean is remembered for the last few hundred of them.
2. Anything else: gunicorn's own parser decides, so what it accepts is accepted and what it refuses is refused, with its
   status. It is the reference, and it costs twenty times as much.

Measured with `python -m benchmarks.parsers`, a head of 226 bytes to the finished environ, medians on a busy machine:
5.5 us with fields that are remembered, 17 us with new ones; httptools 8.4 us (its callbacks are Python calls),
gunicorn_h1c 8.0 us (has to be compiled by whoever installs it), both without most of the checks; gunicorn's own parser
113 us. So no parser is added: the C code is that of `str`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from wsgiref.types import WSGIEnvironment

from gunicorn.http.errors import InvalidHeader, InvalidRequestLine
from gunicorn.http.message import MAX_HEADERS
from gunicorn.util import unquote_to_wsgi_str

from ..gunicorns_parts import Config
from .request import PlainRequest

HEAD_END = b"\r\n\r\n"
VISIBLE = bytes(range(0x20, 0x7F))
PRINTABLE = VISIBLE + b"\r\n\t"
METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))
TOKEN = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]+")  # RFC 9110 5.6.2, without `_`: gunicorn decides about that
# Headers whose meaning is more than a value in the environ: gunicorn's parser knows all of it.
DELICATE = frozenset(("TRANSFER-ENCODING", "EXPECT", "UPGRADE", "HTTP2-SETTINGS", "SCRIPT-NAME", "TE", "TRAILER"))
DEFAULT_PORTS = {"http": "80", "https": "443"}
REMEMBERED_NAMES = 1000
REMEMBERED_HOSTS = 100
REMEMBERED_FIELDS = 256
LONGEST_REMEMBERED_BYTES = 2_000
LONGEST_LENGTH_DIGITS = 18  # int() refuses thousands of them, and nobody means that many
# RFC 9110 7.2, RFC 3986 3.2.2: an address in brackets, or a name; then perhaps a port.
HOST = re.compile(r"(?:\[[0-9A-Fa-fvV:.%~\-_!$&'()*+,;=]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(?::[0-9]*)?")
ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://([^/?#]*)")


class Fields(NamedTuple):
    """The meaning of the fields of a plain head. `scheme`: "" nothing about it, "?" two that contradict each other."""

    environ: dict[str, str]
    content_length: int
    is_kept_alive: bool
    scheme: str


class HeadParser:
    """Parses plain heads under one worker's configuration.

    `peer_is_trusted` is asked per connection and handed in: whether forwarding headers of this peer count.
    """

    def __init__(self, cfg: Config, script_name: str = "") -> None:
        self.script_name = script_name
        # By the environ's name. One that is not all capitals, or has `_`, is not met by any plain head.
        self.secure_scheme_headers: Mapping[str, str] = {
            "HTTP_" + name.replace("-", "_"): value
            for name, value in cfg.secure_scheme_headers.items()
            if name == name.upper() and "_" not in name
        }
        self.scheme = "https" if cfg.is_ssl else "http"
        # A head that is no longer than each single limit is within all of them; a longer one goes the other way.
        request_line = cfg.limit_request_line if cfg.limit_request_line > 0 else 8190
        field_size = cfg.limit_request_field_size if cfg.limit_request_field_size > 0 else 8190
        self.plain_bytes = min(request_line, field_size, 8190)
        self.plain_fields = min(cfg.limit_request_fields if cfg.limit_request_fields > 0 else 100, 100)
        # gunicorn's bound for all headers together, while they are not complete.
        fields = cfg.limit_request_fields if 0 < cfg.limit_request_fields <= MAX_HEADERS else MAX_HEADERS
        self.longest_head_bytes: int = fields * (field_size + 2) + 4
        # Settings that change the meaning of a plain head are off in most servers; with one of them on, no head is
        # plain. Nor is any where gunicorn's own Request is needed.
        self.is_usable = not (
            cfg.casefold_http_method or cfg.strip_header_spaces or cfg.permit_unconventional_http_method
        )
        self._keys: dict[str, str] = {}
        self._hosts: set[str] = set()
        self._fields: dict[bytes, Fields] = {}

    def parse(self, head: bytes, base: WSGIEnvironment, *, peer_is_trusted: bool) -> PlainRequest | None:
        """The head in `head` (up to and with its empty line) over a copy of `base`; None when it is not plain.

        Where `base` has no SERVER_NAME, behind a unix socket, the Host header says it.
        """
        if not self.is_usable or len(head) > self.plain_bytes:
            return None
        end = head.find(b"\r\n")
        line, rest = head[:end], head[end:]
        if line.translate(None, VISIBLE):
            return None
        parts = line.decode("ascii").split(" ")
        if len(parts) != 3:
            return None
        method, target, version = parts
        if version != "HTTP/1.1" or method not in METHODS or target[:1] != "/" or target[:2] == "//" or "#" in target:
            return None
        fields = self._fields.get(rest) or self._remember(rest)
        if fields is None:
            return None
        headers, content_length, is_kept_alive, scheme = fields
        environ = base | headers
        if scheme and peer_is_trusted:
            if scheme == "?":
                return None
            environ["wsgi.url_scheme"] = scheme
        path, _, query = target.partition("?")
        if self.script_name:
            if not path.startswith(self.script_name):
                return None
            path = path[len(self.script_name) :]
        environ["REQUEST_METHOD"] = method
        environ["RAW_URI"] = target
        environ["PATH_INFO"] = unquote_to_wsgi_str(path) if "%" in path else path
        environ["QUERY_STRING"] = query
        if "SERVER_NAME" not in environ:
            name, _, port = headers["HTTP_HOST"].partition(":")
            if not name or ":" in port:  # gunicorn has its own opinion of these
                return None
            environ["SERVER_NAME"] = name
            environ["SERVER_PORT"] = port if name != headers["HTTP_HOST"] else DEFAULT_PORTS[environ["wsgi.url_scheme"]]
        return PlainRequest(environ, is_kept_alive=is_kept_alive, content_length=content_length)

    def _remember(self, data: bytes) -> Fields | None:
        """Return the meaning of the fields in `data`, kept for the next head that has the same."""
        fields = self._parse_fields(data)
        if fields is not None and len(data) <= LONGEST_REMEMBERED_BYTES:
            if len(self._fields) >= REMEMBERED_FIELDS:
                self._fields.clear()
            self._fields[data] = fields
        return fields

    def _parse_fields(self, data: bytes) -> Fields | None:
        """The fields between the request line and the empty line; None when they are not plain."""
        lines_count = data.count(b"\n")
        if (
            lines_count > self.plain_fields
            or data.count(b"\r\n") != lines_count
            or data.count(b"\r") != lines_count
            or data.translate(None, PRINTABLE)
            or b"\r\n " in data
            or b"\r\n\t" in data
        ):
            return None
        environ: dict[str, str] = {}
        content_length = 0
        is_kept_alive = True
        scheme = ""
        keys = self._keys
        for line in data.decode("ascii").split("\r\n")[1:-2]:
            name, colon, value = line.partition(":")
            key = keys.get(name) or self._key(name)
            if not key or not colon or key in environ:
                return None
            value = value.strip(" \t")
            environ[key] = value
            if key == "CONTENT_LENGTH":
                if not value.isdigit() or len(value) > LONGEST_LENGTH_DIGITS:
                    return None
                content_length = int(value)
            elif key == "HTTP_CONNECTION":
                is_kept_alive = value == "keep-alive" or not says_close(value)
            elif (secure := self.secure_scheme_headers.get(key)) is not None:
                said = "https" if value == secure else "http"
                scheme = said if scheme in ("", said) else "?"
        host = environ.get("HTTP_HOST")
        if host not in self._hosts and not self._is_host(host):
            return None
        return Fields(environ, content_length, is_kept_alive, scheme)

    def _key(self, name: str) -> str:
        """The environ key of a header, remembered; "" for a name that gunicorn's parser has to judge."""
        upper = name.upper()
        if not TOKEN.fullmatch(name) or upper in DELICATE:
            return ""
        key = upper.replace("-", "_")
        if key not in ("CONTENT_LENGTH", "CONTENT_TYPE"):
            key = "HTTP_" + key
        if len(self._keys) < REMEMBERED_NAMES:  # names come from clients: a flood of new ones must not fill the memory
            self._keys[name] = key
        return key

    def _is_host(self, host: str | None) -> bool:
        if host is None or not HOST.fullmatch(host):
            return False
        if len(self._hosts) < REMEMBERED_HOSTS:
            self._hosts.add(host)
        return True


def demand(request: Any, *, allows_no_host: bool = False) -> None:
    """Demand of an accepted request the rules of HTTP/1.1 that gunicorn's parser lets pass.

    1. Exactly one Host, and a valid one (RFC 9112 3.2); HTTP/1.0 may have none, and health checkers
       where a setting allows it. Raises InvalidHeader.
    2. An absolute target names the host, whatever Host says (RFC 9112 3.2.2). Raises InvalidRequestLine without one.
    3. `close` anywhere in a Connection header ends the connection (RFC 9112 9.6).
    """
    hosts = [value for name, value in request.headers if name == "HOST"]
    if any(not HOST.fullmatch(host) for host in hosts) or (
        not hosts and request.version >= (1, 1) and not allows_no_host
    ):
        raise InvalidHeader("HOST", req=request)
    absolute = ABSOLUTE_FORM.match(request.uri) if request.method != "CONNECT" else None
    if absolute is not None:
        host = absolute[1]
        if not host or not HOST.fullmatch(host):
            raise InvalidRequestLine(request.uri)
        request.headers = [(name, value) for name, value in request.headers if name != "HOST"] + [("HOST", host)]
    if any(name == "CONNECTION" and says_close(value) for name, value in request.headers):
        request.force_close()


def says_close(value: str) -> bool:
    """Whether `close` is among the options of a Connection header."""
    return any(option.strip(" \t") == "close" for option in value.lower().split(","))


def has_bare_line_feed(data: bytes | bytearray, start: int = 0) -> bool:
    """Whether a line ends without CR: such a head never ends, and is refused at once and not when time is up.

    `start` is where to begin, with a byte that is known not to be such an end.
    """
    return data.count(b"\n", start and start + 1) != data.count(b"\r\n", start)
