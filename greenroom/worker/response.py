"""Writing a response: gunicorn's rules, fewer system calls.

The rules for a status, a header, a body are gunicorn's (its class is the base). Different here: the head and
the first piece of the body leave in one call, the usual header is checked without a regular expression, and every write
is bounded in time.
"""

import io
import os
import stat
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from types import TracebackType

from gunicorn import SERVER
from gunicorn.http.wsgi import FileWrapper
from gunicorn.util import is_hoppish

from ..gunicorns_parts import Config
from ..in_flight import CLIENT_LEFT, CURRENT, FOREVER, Record
from ..insight.account import Account
from ..insight.timing import head_text
from .gunicorns import InvalidResponseHeader, early_hints
from .gunicorns import Response as GunicornResponse
from .request import ClientRequest
from .wire import Wire

REMEMBERED_NAMES = 1000
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
LARGE_BYTES = 65_536  # from here on, copying costs more than another system call
LONGEST_REMEMBERED_VALUE = 200
# Names of response headers that passed gunicorn's check, in lower case.
_checked_names: dict[str, str] = {}
# Whole headers that did, as they were given, each with its length if it is a Content-Length: applications send the same
# ones again and again. Not cookies: those are somebody's, and never the same. Nor ids of requests.
_checked_headers: dict[tuple[str, str], int | None] = {}
ID_NAME = "x-request-id"
NEVER_REMEMBERED = ("set-cookie", ID_NAME)
UNKNOWN = -1
# Statuses that passed gunicorn's check and have a body, with their code.
_checked_statuses: dict[str, int] = {}
_date = (0, "")


def answer_begins(record: Record, status: str) -> bool:
    """The budget has done its work: a stream may take as long as somebody reads it. False: the edge is to answer.

    That is so where the loop has had no turn since the deadline. A failure (500) is then how frameworks tell of the
    timeout error; anything else was computed, and is wanted. Once the client has left, every 5xx is such a failure.
    """
    if not record.is_spent():
        record.lift()
        return True
    return not (status.startswith("500") or (status.startswith("5") and record.cut_reason == CLIENT_LEFT))


def announces_event_stream(headers: Iterable[tuple[str, str]]) -> bool:
    return any(
        name.lower() == "content-type" and value.lower().startswith("text/event-stream") for name, value in headers
    )


class Response(GunicornResponse):  # type: ignore[misc]  # gunicorn has no types
    """One response over a wire.

    Runs on: request greenlet; switches where the client is slow.
    """

    # Attributes that gunicorn's class sets for each response, with the types that they have here; a test compares them.
    req: ClientRequest
    headers: list[tuple[str, str]]
    status_code: int
    sock: None = None
    version: str = SERVER
    status: str | None = None
    chunked: bool = False
    must_close: bool = False
    headers_sent: bool = False
    response_length: int | None = None
    sent: int = 0
    upgrade: bool = False
    _omits_body: bool = False
    _omits_body_warned: bool = False
    _pending_head: bytes = b""
    # The head's promise about the connection. It is kept even if the worker begins to drain meanwhile: the client's
    # next request may be under way, and would find a closed door.
    is_last: bool = True
    account: Account | None = None  # whose request this answers, where that is known
    has_timing: bool = False
    has_own_id: bool = False  # whether the application gives its answer an X-Request-ID
    # Somebody else has answered, or the connection is no longer HTTP: what the application answers goes nowhere.
    is_dropped: bool = False
    is_whole: bool = False  # nothing of it is still to be sent

    def __init__(self, req: ClientRequest, sock: None, cfg: Config, wire: Wire) -> None:
        self.req = req
        self.cfg = cfg
        self.wire = wire
        self.headers = []
        self._unclaimed = [None]

    def claim(self) -> bool:
        """Whether the caller may answer: the first to ask, in whichever thread. Nothing is on the wire before."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def drop(self, status: str | None) -> bool:
        """Answer in place of the application, with `status` for logs and metrics; False if it has begun itself."""
        if not self.claim():
            return False
        self.is_dropped = True
        self.status = status
        self.headers = []
        return True

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if self.is_dropped:
            return self.write
        if self.account is not None:
            self.account.pattern()  # which is known now, and not for long
        if exc_info is None and self.status is None and type(status) is str:
            code = _checked_statuses.get(status)
            if code is not None and self.req.method != "HEAD":
                self.status = status
                self.status_code = code
                self.process_headers(headers)
                self.chunked = self.response_length is None and self.is_chunked()
                if self.response_length is None:
                    self._free_events()
                return self.write
        if exc_info and not self.headers_sent:
            # Stored headers are replaced (PEP 3333); gunicorn would add to them.
            self.headers = []
            self.response_length = None
            self.upgrade = self.has_own_id = False
        super().start_response(status, headers, exc_info)
        if not self._omits_body and len(_checked_statuses) < REMEMBERED_NAMES:
            _checked_statuses[status] = self.status_code
        self._free_events()
        return self.write

    def _free_events(self) -> None:
        """The first event of a stream may take as long as any other."""
        record = CURRENT.get()
        if record is not None and self.is_event_stream:
            record.lift()

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        kept = self.headers
        for header in headers:
            try:
                length = _checked_headers.get(header, UNKNOWN)
            except TypeError:  # not a tuple of strings
                length = UNKNOWN
            if length is None:
                kept.append(header)
            elif length == UNKNOWN:
                self._check(*header)
            elif self.response_length is None:
                self.response_length = length
                kept.append(header)
            elif self.response_length != length:
                raise InvalidResponseHeader(f"{header[0]!r}")

    def _check(self, name: str, value: str) -> None:
        """Keep a header, if gunicorn would. Raises what gunicorn raises."""
        lower = _checked_names.get(name) if type(name) is str else None
        if (lower or str(name).lower()) == ID_NAME:
            self.has_own_id = True
        if lower is None or type(value) is not str or not (value.isascii() and value.isprintable()):
            count = len(self.headers)
            length, self.response_length = self.response_length, None
            super().process_headers([(name, value)])  # raises if the name or the value is wrong
            if self.response_length is not None:
                del self.headers[count:]
                self.response_length = length
                self._take_length(name, value.strip(" \t"))
            else:
                self.response_length = length
            if not is_hoppish(name):
                remember(name)
            return
        stripped = value.strip(" \t")
        if lower == "content-length":
            self._take_length(name, stripped)
        else:
            self.headers.append((name, stripped))
        if stripped == value and lower not in NEVER_REMEMBERED and len(value) <= LONGEST_REMEMBERED_VALUE:
            if len(_checked_headers) >= REMEMBERED_NAMES:
                _checked_headers.clear()
            _checked_headers[name, value] = int(value) if lower == "content-length" else None

    def _take_length(self, name: str, value: str) -> None:
        """One Content-Length, digits only (RFC 9110 8.6); gunicorn would send `-5`, and two that contradict."""
        if not (value.isascii() and value.isdigit()):
            raise InvalidResponseHeader(f"{name!r}")
        length = int(value)
        if self.response_length is None:
            self.response_length = length
            self.headers.append((name, value))
        elif self.response_length != length:
            raise InvalidResponseHeader(f"{name!r}")

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        if self.status is None:
            raise AssertionError("the application did not call start_response")
        record = CURRENT.get()
        if record is not None and record.deadline != FOREVER and not answer_begins(record, self.status):
            if record.on_end is not None:
                record.on_end(record)
        if not self.claim():
            return  # the edge was first
        taken = self.wire.taken
        if taken is not None and taken.is_used and taken.is_websocket:
            self.is_dropped = True  # what a framework makes of an error has no place among frames
            return
        if record is not None and (self.upgrade or self.status_code == 101):
            record.release(record.became or "upgraded")
        self._pending_head = self._head()
        self.headers_sent = True

    @property
    def is_event_stream(self) -> bool:
        return announces_event_stream(self.headers)

    def _head(self) -> bytes:
        if self.wire.interim:
            # The client still waits to be asked for its body, and nobody will ask: it may send it or not (RFC 9110
            # 10.1.1), so where its next request would begin is not known.
            self.wire.interim = b""
            self.must_close = True
        if self.wire.body is not None and self.wire.body.failed:
            self.must_close = True  # nor is it after a body that did not come as it should
        self.is_last = self.should_close() or self.upgrade or self.status_code == 101
        connection = "upgrade" if self.upgrade else "close" if self.should_close() else "keep-alive"
        version = self.req.version
        lines = [
            f"HTTP/{version[0]}.{version[1]} {self.status}\r\nServer: {self.version}\r\nDate: {http_date()}\r\n"
            f"Connection: {connection}\r\n"
        ]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        if self.account is not None:
            lines.append(head_text(self.account, has_id=self.has_own_id, has_timing=self.has_timing))
        lines.append("\r\n")
        return "".join(lines).encode("latin-1")

    def write_items(self, items: Iterable[bytes]) -> None:
        """Write the application's items. Empty ones send nothing: until there is a body, the head may change."""
        for item in items:
            if item or type(item) is not bytes:
                self._write(item)
            if self.is_dropped:
                return

    def write(self, data: bytes) -> None:
        """Write as the callable of start_response: data is on its way when this returns."""
        self._write(data)
        self.flush()

    def _write(self, data: bytes) -> None:
        if self.is_dropped or self.req is None:  # the connection is the next request's already
            time.sleep(0)  # who writes without end to nobody must not hold the loop
            return
        if self._omits_body or type(data) is not bytes:
            super().write(data)  # which says why it sends nothing
            return
        self.send_headers()
        if self.is_dropped:
            return
        length = self.response_length
        if length is not None and len(data) > length - self.sent:
            data = data[: max(0, length - self.sent)]
        if data:
            self.sent += len(data)
            self._emit_body(data)

    def _emit_body(self, data: bytes) -> None:
        head, self._pending_head = self._pending_head, b""
        if len(data) >= LARGE_BYTES:
            if self.chunked:
                self.wire.send_parts(b"%b%X\r\n" % (head, len(data)), data, b"\r\n")
            else:
                self.wire.send_parts(head, data)
            return
        if self.chunked:
            data = b"%b%X\r\n%b\r\n" % (head, len(data), data)
        elif head:
            data = head + data
        self.wire.send(data)

    def flush(self) -> None:
        """Send the head if nothing has carried it yet."""
        head, self._pending_head = self._pending_head, b""
        if head:
            self.wire.send(head)

    def close(self) -> None:
        if not self.headers_sent and not self.is_dropped:
            self.send_headers()
        if self.is_dropped:
            return
        if self.chunked:
            head, self._pending_head = self._pending_head, b""
            self.wire.send(head + b"0\r\n\r\n")
        else:
            self.flush()
        self.is_whole = not self.is_short

    def sendfile(self, respiter: FileWrapper) -> bool:
        """The file in `respiter` straight from the kernel; False if it has to be read like any other body."""
        file = plain_file(respiter.filelike)
        if file is None or self.cfg.is_ssl or not self.can_sendfile():
            return False
        descriptor = file.fileno()
        status = os.fstat(descriptor)
        # Files of /proc and /sys have no blocks, and no size or a wrong one: they are read.
        if not stat.S_ISREG(status.st_mode) or not status.st_blocks:
            return False
        # tell() and not the descriptor's own position, which is ahead by what the file object has in its buffer.
        offset = file.tell()
        count = status.st_size - offset if self.response_length is None else self.response_length - self.sent
        self.send_headers()
        if self._omits_body or count <= 0 or self.is_dropped:
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
        if self.req is not None and not self.is_dropped:
            early_hints(self.req, _SendAll(self.wire), self)(headers)

    def let_go(self) -> None:
        """What is still written goes nowhere. Without this the environ would live until the next garbage collection: it
        refers to early_hints, that to the response, to the request, and to the environ."""
        self.account = None
        self.req = None  # type: ignore[assignment]  # which tells code that still writes

    @property
    def is_head_on_wire(self) -> bool:
        return self.headers_sent and not self._pending_head

    @property
    def is_short(self) -> bool:
        """Whether the application gave fewer bytes than its Content-Length announced."""
        is_bounded = self.response_length is not None and not self._omits_body and not self.is_dropped
        return is_bounded and self.sent < (self.response_length or 0)


class ShortBody(Exception):
    """The body ended before its announced length; the connection must be broken, or the client waits for the rest."""


class _SendAll:
    def __init__(self, wire: Wire) -> None:
        self.sendall = wire.send


def plain_file(file: object) -> io.BufferedReader | io.BufferedRandom | io.FileIO | None:
    """`file` if the bytes of its descriptor are what reading it gives, else None (GzipFile has a descriptor, too)."""
    file = getattr(file, "file", file)  # tempfile's
    return file if isinstance(file, io.BufferedReader | io.BufferedRandom | io.FileIO) else None


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
