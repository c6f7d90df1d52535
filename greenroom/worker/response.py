"""Writing a response: gunicorn's rules, fewer system calls.

What may be in a status, a header, a body and when is gunicorn's (its class is the base). Different here: the head and
the first piece of the body leave in one call, the usual header is checked without a regular expression, and every write
is bounded in time.
"""

import os
import time
from email.utils import formatdate
from typing import Any

from gunicorn.http.wsgi import Response as GunicornResponse
from gunicorn.http.wsgi import _make_early_hints_callback as make_early_hints
from gunicorn.util import has_fileno, is_hoppish

from .wire import Wire

REMEMBERED_NAMES = 1000
# Names of response headers that passed gunicorn's check, in lower case.
_checked_names: dict[str, str] = {}
_date = (0, "")


class Response(GunicornResponse):  # type: ignore[misc]  # gunicorn has no types
    """One response over a wire.

    Runs on: request greenlet; switches where the client is slow.
    """

    headers_sent: bool

    def __init__(self, req: Any, sock: Any, cfg: Any, wire: Wire) -> None:
        super().__init__(req, sock, cfg)
        self.wire = wire
        self._pending_head = b""

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        for name, value in headers:
            lower = _checked_names.get(name) if type(name) is str else None
            if lower is None or type(value) is not str or not (value.isascii() and value.isprintable()):
                super().process_headers([(name, value)])  # raises if the name or the value is wrong
                if not is_hoppish(name):
                    remember(name)
            elif lower == "content-length":
                self.response_length = int(value)
                self.headers.append((name, value.strip(" \t")))
            else:
                self.headers.append((name, value.strip(" \t")))

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        self._pending_head = self._head()
        self.headers_sent = True

    def _head(self) -> bytes:
        connection = "upgrade" if self.upgrade else "close" if self.should_close() else "keep-alive"
        version = self.req.version
        lines = [
            f"HTTP/{version[0]}.{version[1]} {self.status}\r\nServer: {self.version}\r\nDate: {http_date()}\r\n"
            f"Connection: {connection}\r\n"
        ]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        lines.append("\r\n")
        return "".join(lines).encode("latin-1")

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        head, self._pending_head = self._pending_head, b""
        self.wire.send(head + data if head else data)

    def flush(self) -> None:
        """Send the head if nothing has carried it yet."""
        head, self._pending_head = self._pending_head, b""
        if head:
            self.wire.send(head)

    def close(self) -> None:
        if not self.headers_sent:
            self.send_headers()
        if self.chunked:
            head, self._pending_head = self._pending_head, b""
            self.wire.send(head + b"0\r\n\r\n")
        else:
            self.flush()

    def sendfile(self, respiter: Any) -> bool:
        """The file in `respiter` straight from the kernel; False if it has to be read like any other body."""
        if self.cfg.is_ssl or not self.can_sendfile() or not has_fileno(respiter.filelike):
            return False
        descriptor = respiter.filelike.fileno()
        try:
            offset = os.lseek(descriptor, 0, os.SEEK_CUR)
            size = os.fstat(descriptor).st_size - offset
        except OSError:
            return False  # a pipe, say
        count = size if self.response_length is None else self.response_length
        self.send_headers()
        if self._omits_body or count <= 0:
            return True
        if self.chunked:
            self._pending_head += b"%X\r\n" % count
        self.flush()
        sent = self.wire.send_file(descriptor, offset, count)
        self.sent += sent
        if sent < count:
            raise ShortBody(f"the file ended after {sent} of {count} bytes")
        if self.chunked:
            self.wire.send(b"\r\n")
        return True

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """environ["wsgi.early_hints"], as gunicorn does it."""
        make_early_hints(self.req, _SendAll(self.wire), self)(headers)

    @property
    def is_head_on_wire(self) -> bool:
        return self.headers_sent and not self._pending_head

    @property
    def is_short(self) -> bool:
        """Whether the application gave fewer bytes than its Content-Length announced."""
        return self.response_length is not None and not self._omits_body and self.sent < self.response_length


class ShortBody(Exception):
    """The body ended before its announced length; the connection must be broken, or the client waits for the rest."""


class _SendAll:
    def __init__(self, wire: Wire) -> None:
        self.sendall = wire.send


def remember(name: str) -> None:
    if len(_checked_names) < REMEMBERED_NAMES:
        _checked_names[name] = name.lower()


def http_date() -> str:
    """The Date header's value, made once a second."""
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True))
    return _date[1]
