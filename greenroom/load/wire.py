"""Reading HTTP/1.x answers from pieces of any size, without keeping more of them than is asked for.

head ──> Content-Length ──┐
  │ ───> chunked ─────────┤──> complete
  │ ───> until it closes ─┤
  └────> an event stream, up to so many events
"""

from dataclasses import dataclass
from typing import Protocol

LARGEST_HEAD_BYTES = 65_536
LARGEST_CHUNK_LINE_BYTES = 1024
_CACHED_HEADS = 512


class Garbled(Exception):
    """It is no HTTP, or not the whole of it; the text is the kind of error that is counted."""


class ReadAnswer(Protocol):
    """An answer that has come, by whatever protocol."""

    @property
    def head(self) -> "Head | None": ...
    @property
    def body(self) -> bytes: ...
    @property
    def body_bytes(self) -> int: ...
    @property
    def events(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer, as far as the generator needs it. `length` is None when it is not given."""

    status: int
    length: int | None
    is_chunked: bool
    keeps_connection: bool
    has_retry_after: bool
    location: str
    is_event_stream: bool
    raw: bytes
    is_plain: bool = False  # its length is all there is to know of its end


def parse_head(raw: bytes) -> Head:
    """Parse a head: all bytes before the empty line. Raises Garbled."""
    lines = raw.split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit() or len(rest[:3]) != 3:
        raise Garbled("no HTTP answer")
    status = int(rest[:3])
    length: int | None = None
    is_chunked = has_retry_after = is_event_stream = False
    keeps = version == b"HTTP/1.1"
    location = ""
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise Garbled("no HTTP answer")
        name, value = name.strip().lower(), value.strip()
        if name == b"content-length":
            if not value.isdigit() or (length is not None and length != int(value)):
                raise Garbled("no HTTP answer")
            length = int(value)
        elif name == b"transfer-encoding":
            is_chunked = value.lower().endswith(b"chunked")
        elif name == b"connection":
            words = {word.strip() for word in value.lower().split(b",")}
            keeps = b"close" not in words and (keeps or b"keep-alive" in words)
        elif name == b"retry-after":
            has_retry_after = True
        elif name == b"location":
            location = value.decode("latin-1")
        elif name == b"content-type":
            is_event_stream = value.lower().startswith(b"text/event-stream")
    is_plain = 200 <= status and status not in (204, 304) and not is_chunked and not is_event_stream
    return Head(status, length, is_chunked, keeps, has_retry_after, location, is_event_stream, raw, is_plain)


class AnswerReader:
    """One answer after another on a connection: `begin`, then `feed` until it is True."""

    __slots__ = (
        "_buffer", "_heads", "_is_head_request", "_keeps_body", "_left", "_pieces", "_state", "_wanted_events",
        "_tail", "body_bytes", "events", "head", "largest_bytes",
    )  # fmt: skip

    def __init__(self, largest_bytes: int, heads: dict[bytes, Head]) -> None:
        """`heads`: those that were seen, shared by all connections, since most answers of a server begin alike."""
        self.largest_bytes = largest_bytes
        self._heads = heads
        self.begin()

    def begin(self, *, is_head_request: bool = False, keeps_body: bool = False, events: int = 0) -> None:
        self.head: Head | None = None
        self.body_bytes = 0
        self.events = 0
        self._buffer = b""
        self._pieces: list[bytes] = []
        self._state = _HEAD
        self._left = 0
        self._tail = b""
        self._is_head_request = is_head_request
        self._keeps_body = keeps_body
        self._wanted_events = events

    @property
    def has_begun(self) -> bool:
        return self.head is not None or bool(self._buffer)

    @property
    def body(self) -> bytes:
        """Empty unless `keeps_body` was asked for."""
        return b"".join(self._pieces)

    @property
    def keeps_connection(self) -> bool:
        """Whether another request may be sent, once the answer is complete."""
        return self.head is not None and self.head.keeps_connection and self._state == _DONE

    def feed(self, data: bytes) -> bool:
        """Take what was received; True once the answer is complete. Raises Garbled."""
        if self._state == _HEAD:
            if not (self._buffer or self._keeps_body or self._is_head_request):
                end = data.find(b"\r\n\r\n") + 4  # the usual case: one piece, seen before, and nothing wanted of it
                head = self._heads.get(data[: end - 4])
                if head is not None and head.is_plain and head.length == len(data) - end <= self.largest_bytes:
                    self.head = head
                    self.body_bytes = head.length
                    self._state = _DONE
                    return True
            data = self._buffer + data if self._buffer else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                return self._wait_for_head(data)
            raw = data[:end]
            head = self._heads.get(raw)
            if head is None:
                head = self._remembered(raw)
            data = data[end + 4 :]
            if head.status < 200:
                if head.status == 101:
                    raise Garbled("no HTTP answer")
                self._buffer = b""
                return self.feed(data) if data else False
            self._begin_body(head)
        return self._body(data)

    def feed_end(self) -> bool:
        """The server has closed; True if that completes the answer. Raises Garbled."""
        if self._state == _UNTIL_CLOSE:
            return True
        raise Garbled("answer cut short" if self.has_begun else "closed without an answer")

    def _wait_for_head(self, data: bytes) -> bool:
        self._buffer = data
        if not b"HTTP/1.".startswith(data[:7]) or len(data) > LARGEST_HEAD_BYTES:
            raise Garbled("no HTTP answer")
        return False

    def _remembered(self, raw: bytes) -> Head:
        head = parse_head(raw)
        if len(self._heads) >= _CACHED_HEADS:
            self._heads.clear()
        self._heads[raw] = head
        return head

    def _begin_body(self, head: Head) -> None:
        self.head = head
        self._buffer = b""
        if head.is_event_stream and not self._wanted_events:
            self._wanted_events = 1  # it has no end: its first event is the answer
        if self._is_head_request or head.status in (204, 304):
            self._state, self._left = _LENGTH, 0
        elif head.is_chunked:
            self._state = _CHUNK_LINE
        elif head.length is None:
            self._state = _UNTIL_CLOSE
        else:
            self._state, self._left = _LENGTH, head.length

    def _body(self, data: bytes) -> bool:
        if self._state == _LENGTH:
            if len(data) > self._left:
                raise Garbled("more than an answer")
            self._left -= len(data)
            if self._take(data):
                return True
            if self._left == 0:
                self._state = _DONE
            return self._left == 0
        if self._state == _UNTIL_CLOSE:
            return self._take(data)
        return self._chunks(data)

    def _chunks(self, data: bytes) -> bool:
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        while True:
            if self._state == _CHUNK:
                piece = data[: self._left]
                self._left -= len(piece)
                data = data[len(piece) :]
                if self._take(piece):
                    return True
                if self._left:
                    return False
                self._state = _CHUNK_END
            end = data.find(b"\r\n")
            if end < 0:
                if len(data) > LARGEST_CHUNK_LINE_BYTES:
                    raise Garbled("no HTTP answer")
                self._buffer = data
                return False
            line, data = data[:end], data[end + 2 :]
            if self._after_line(line):
                if data:
                    raise Garbled("more than an answer")
                return True

    def _after_line(self, line: bytes) -> bool:
        """One line between chunks; True if it is the last of the answer."""
        if self._state == _CHUNK_END:
            if line:
                raise Garbled("no HTTP answer")
            self._state = _CHUNK_LINE
        elif self._state == _TRAILERS:
            if not line:
                self._state = _DONE
                return True
        else:
            try:
                self._left = int(line.partition(b";")[0], 16)
            except ValueError as exc:
                raise Garbled("no HTTP answer") from exc
            self._state = _CHUNK if self._left else _TRAILERS
        return False

    def _take(self, piece: bytes) -> bool:
        """Count a piece of the body; True if no more of it is wanted. Raises Garbled for endless ones."""
        self.body_bytes += len(piece)
        if self._wanted_events:
            both = (self._tail + piece).replace(b"\r\n", b"\n")
            self.events += both.count(b"\n\n")
            self._tail = both[-1:] if not both.endswith(b"\n\n") else b""
            return self.events >= self._wanted_events
        if self.body_bytes > self.largest_bytes:
            raise Garbled("an answer too large")
        if self._keeps_body:
            self._pieces.append(piece)
        return False


_HEAD, _LENGTH, _UNTIL_CLOSE, _CHUNK_LINE, _CHUNK, _CHUNK_END, _TRAILERS, _DONE = range(8)
