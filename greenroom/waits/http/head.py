"""Heads of requests and of answers: the usual ones are written and read here, quickly; all others elsewhere.

"Elsewhere" is what `requests` has always used (its own adapter for requests, http.client for answers), so that what is
unusual means the same as ever. A function that leaves a head to them returns None.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from requests._internal_utils import _VALID_HEADER_NAME_RE_STR, _VALID_HEADER_VALUE_RE_STR
from urllib3.connection import _get_default_user_agent
from urllib3.util.request import body_to_chunks

DEFAULT_PORTS = {"http": 80, "https": 443}
BLOCK_BYTES = 16_384  # what urllib3 reads of a file at a time
_PATH = r"[A-Za-z0-9\-._~!$&'()*+,;=:@/]*(?:%[0-9A-F]{2}[A-Za-z0-9\-._~!$&'()*+,;=:@/]*)*"
_QUERY = r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?]+(?:%[0-9A-F]{2}[A-Za-z0-9\-._~!$&'()*+,;=:@/?]*)*"
# A URL that urllib3 would send as it stands: a lower-case host, a path and a query in which nothing is to be quoted.
_URL = re.compile(
    r"(https?)://(?:[^@/?#\\\s]*@)?([a-z0-9][a-z0-9._\-]*|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?"
    rf"(/{_PATH}(?:\?{_QUERY})?)(?:#\S*)?"
).fullmatch
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_WITHOUT_BODY = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))
_VALID_NAME = _VALID_HEADER_NAME_RE_STR.match
_VALID_VALUE = _VALID_HEADER_VALUE_RE_STR.match
# Fields that change how a request is sent, or stand beside a body.
_BODY_FIELDS = frozenset(("content-length", "transfer-encoding"))
NO_ENCODING = "Accept-Encoding: identity\r\n"
_FIELDS = re.compile(r"(?:[!-9;-~]+: [^\r\n]*\r\n)*").fullmatch
_ANSWER = re.compile(rb"HTTP/1\.1 ([2-9][0-9][0-9]) ?([^\r\n]*)").fullmatch
_FIELD = re.compile(r"([!-9;-~]+):[ \t]*([^\x00-\x08\n-\x1f\x7f]*)").fullmatch
_END = re.compile(rb"\n\r?\n").search
MOST_FIELDS = 99  # http.client's limit: a hundred lines, the empty one included
LARGEST_PLAIN_BYTES = 65_536  # http.client's limit for one line
LARGEST_REMEMBERED_BYTES = 4096
INTERIM = re.compile(rb"HTTP/1\.1 10[02-9](?: [^\r\n]*)?\r\n").match


class Target(NamedTuple):
    """Where a request goes and what it asks for there. `host` has no brackets."""

    scheme: str
    host: str
    port: int
    path: str
    host_field: str


def target_of(url: Any) -> Target | None:
    """None unless the URL is one that needs no thought."""
    return _target_of(url) if type(url) is str else None


@lru_cache(maxsize=1000)
def _target_of(url: str) -> Target | None:
    match = _URL(url)
    if match is None:
        return None
    scheme, host, port_text, path = match.groups()
    port = int(port_text) if port_text else DEFAULT_PORTS[scheme]
    if port > 65_535:
        return None
    name = host.rstrip(".")  # only the look-up needs the dot
    if not name:
        return None
    host_field = name if port == DEFAULT_PORTS[scheme] else f"{name}:{port}"
    return Target(scheme, host[1:-1] if host[0] == "[" else host, port, path, host_field)


class Outgoing(NamedTuple):
    """A request ready to be sent. `chunks` follow the head; `is_repeatable`: it can be sent again from the start;
    `closes`: it says that its connection is not to be kept.
    """

    head: bytes
    chunks: Iterable[bytes]
    is_repeatable: bool
    closes: bool


def outgoing(method: Any, target: Target, headers: Any, body: Any, extra: str) -> Outgoing | None:
    """The request as urllib3 writes it, `extra` fields added. None for what is better left to urllib3.

    `headers` is a CaseInsensitiveDict of requests.
    """
    if method not in _METHODS:
        return None
    store = headers._store
    text = field_text(store)
    if text is None:
        return None
    first = [f"{method} {target.path} HTTP/1.1\r\n"]
    if "host" not in store:
        first.append(f"Host: {target.host_field}\r\n")
    if "accept-encoding" not in store:
        first.append(NO_ENCODING)
    is_chunked = False
    chunks: Iterable[bytes] = ()
    if body is None:
        if "transfer-encoding" in store:
            return None
        if "content-length" not in store and method not in _WITHOUT_BODY:
            first.append("Content-Length: 0\r\n")
    else:
        # As requests' adapter decides it.
        is_chunked = "content-length" not in store
        if is_chunked and "transfer-encoding" not in store:
            first.append("Transfer-Encoding: chunked\r\n")
        chunks = body_to_chunks(body, method, BLOCK_BYTES).chunks or ()
    if "user-agent" not in store:
        first.append(f"User-Agent: {_get_default_user_agent()}\r\n")
    try:
        head = f"{''.join(first)}{text}{extra}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        return None
    closes = says_close(store)
    if body is None:
        return Outgoing(head, (), True, closes)
    pieces = _in_chunks(chunks) if is_chunked else _encoded(chunks)
    if not isinstance(body, (bytes, str)):
        return Outgoing(head, pieces, False, closes)
    whole = b"".join(pieces)
    if len(whole) <= BLOCK_BYTES:
        return Outgoing(head + whole, (), True, closes)
    return Outgoing(head, (whole,), True, closes)


def field_text(store: Any) -> str | None:
    """The lines for these fields, None for such that are better left to urllib3."""
    fields = []
    for name, value in store.values():
        if type(value) is not str:
            if not isinstance(value, bytes) or type(name) is not str:
                return None
            value = value.decode("latin-1")
        fields.append(f"{name}: {value}\r\n")
    text = "".join(fields)
    return None if _FIELDS(text) is None or "@@@SKIP_HEADER@@@" in text else text


def says_close(store: Any) -> bool:
    connection = store.get("connection")
    return connection is not None and str(connection[1]).lower() == "close"


class Lines(NamedTuple):
    """The fields of a request without body, as they are kept in `store` and as they are sent.

    `text` is all that stands between Host and the fields that are added each time.
    """

    store: Any
    text: str
    has_host: bool
    closes: bool


def lines_of(fields: tuple[tuple[Any, Any], ...]) -> Lines | None:
    """The lines for names and values, None unless they are all text and all usual."""
    try:
        return _lines_of(fields)
    except TypeError:  # not hashable, so not text
        return None


@lru_cache(maxsize=200)
def _lines_of(fields: tuple[tuple[Any, Any], ...]) -> Lines | None:
    for name, value in fields:
        is_valid = type(name) is str and type(value) is str and _VALID_NAME(name) and _VALID_VALUE(value)
        if not is_valid:
            return None
    store = OrderedDict((name.lower(), (name, value)) for name, value in fields)
    text = field_text(store)
    if text is None or not store.keys().isdisjoint(_BODY_FIELDS):
        return None
    before = "" if "accept-encoding" in store else NO_ENCODING
    if "user-agent" not in store:
        before += f"User-Agent: {_get_default_user_agent()}\r\n"
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return None
    return Lines(store, before + text, "host" in store, says_close(store))


def without_body(method: str, target: Target, lines: Lines, extra: str) -> Outgoing:
    """Return `outgoing` of a request without body."""
    host = "" if lines.has_host else f"Host: {target.host_field}\r\n"
    head = f"{method} {target.path} HTTP/1.1\r\n{host}{lines.text}{extra}\r\n"
    return Outgoing(head.encode("latin-1"), (), True, lines.closes)


def _encoded(chunks: Iterable[Any]) -> Iterable[bytes]:
    for chunk in chunks:
        if chunk:
            yield chunk.encode() if isinstance(chunk, str) else chunk


def _in_chunks(chunks: Iterable[Any]) -> Iterable[bytes]:
    for chunk in _encoded(chunks):
        yield b"%x\r\n%b\r\n" % (len(chunk), chunk)
    yield b"0\r\n\r\n"


class Head(NamedTuple):
    """The head of an answer. `fields` has for each lower-case name: the name as it came, and its values."""

    status: int
    reason: str
    fields: dict[str, tuple[str, ...]]
    lines: list[str]

    def items(self) -> list[tuple[str, str]]:
        """Names and values as they came."""
        found = map(_FIELD, self.lines)
        return [(match[1], match[2]) for match in found if match is not None]


def end_of_head(received: bytes, searched: int = 0) -> int:
    """Where the body begins, 0 if the head isn't complete. A line may end in a bare newline, as in http.client."""
    match = _END(received, searched - 3 if searched > 3 else 0)
    return 0 if match is None else match.end()


def plain_head(head: bytes) -> Head | None:
    """Parse `head`, all up to and with the empty line; None where http.client should read it."""
    first, _, rest = head.partition(b"\r\n")
    status = _status(first)
    if status is None or len(head) > LARGEST_PLAIN_BYTES or not head.endswith(b"\r\n\r\n"):
        return None
    lines = rest[:-4].decode("latin-1").split("\r\n") if len(rest) > 2 else []
    if len(lines) > MOST_FIELDS:
        return None
    found: list[Any] = [*map(_field if len(head) <= LARGEST_REMEMBERED_BYTES else _field.__wrapped__, lines)]
    if None in found:
        return None
    fields: dict[str, tuple[str, ...]] = dict(found)
    if len(fields) < len(found):
        fields = {}
        for name, field in found:
            known = fields.get(name)
            fields[name] = field if known is None else (*known, field[1])
    return Head(*status, fields, lines)


# Most lines of heads are the same each time.
@lru_cache(maxsize=1000)
def _field(line: str) -> tuple[str, tuple[str, str]] | None:
    match = _FIELD(line)
    return None if match is None else (match[1].lower(), (match[1], match[2]))


@lru_cache(maxsize=100)
def _status(line: bytes) -> tuple[int, str] | None:
    match = _ANSWER(line)
    return None if match is None else (int(match[1]), match[2].decode("latin-1").strip())
