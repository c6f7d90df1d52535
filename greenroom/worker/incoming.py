"""Bodies of HTTP/1.1 requests: gunicorn's readers over a wire, with bounds and with errors that are the client's."""

import io
from typing import Protocol

from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import Unreader

from ..gunicorns_parts import Log
from . import gunicorns
from .client_errors import BodyMalformed, ClientLeft, ClientTooSlow
from .fair import PIECE_BYTES, fair
from .wire import RECEIVE_BYTES, Wire

CHUNKS_BYTES = 8_192
# A body that the application left unread is read and dropped up to this size, to keep the connection.
DISCARD_BYTES = 65_536
DISCARD_STEP_BYTES = 8_192


class Reader(Protocol):
    """gunicorn's reader of a body, by its length or by chunks, or a stream's."""

    def read(self, size: int, /) -> bytes: ...


class NeedMore(Exception):
    """The received bytes are not the whole head."""


class WireUnreader(Unreader):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's view of a connection: what was received already, then what the wire still brings.

    While a head is parsed (`may_wait` False, in the hub) it raises NeedMore instead of waiting.
    """

    buf: io.BytesIO

    def __init__(self, wire: Wire, received: bytes, *, may_wait: bool) -> None:
        super().__init__()
        self.wire = wire
        self.may_wait = may_wait
        if received:
            self.buf.write(received)

    def take_buffered(self) -> bytes:
        """Return the bytes received and not read; as gunicorn's own method, which came with 27."""
        data: bytes = self.buf.getvalue()
        self.buf = io.BytesIO()
        return data

    def chunk(self, size_hint: int | None = None) -> bytes:
        if not self.may_wait:
            raise NeedMore
        if size_hint is None:
            # For the size of a chunk, or trailers; gunicorn copies all the rest for each of them.
            return self.wire.receive(CHUNKS_BYTES)
        return self.wire.receive(min(max(size_hint, RECEIVE_BYTES), PIECE_BYTES))


class ClientBody(Body):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's body. The edge answers a body that is no HTTP with 400, whatever the application makes of the error.

    Private to gunicorn: `_read_reader`, through which all that reads goes.
    """

    failed: bool

    def __init__(self, reader: Reader, wire: Wire) -> None:
        super().__init__(reader)
        self.wire = wire
        self._older_read = None if gunicorns.KNOWS_FAILED_BODIES else gunicorns.read_of(self, reader)

    def _read_reader(self, size: int) -> bytes:
        try:
            if self._older_read is not None:
                return self._older_read(size)
            return super()._read_reader(size)  # type: ignore[no-any-return]
        except gunicorns.MALFORMED_BODY as exc:
            malformed = BodyMalformed(f"the body is not valid: {exc}")
            if self.wire.owner is not None and not self.wire.is_over:
                self.wire.owner.body_failed(malformed)
            raise malformed from exc


class Incoming:
    """The body of the running request, and what came behind it."""

    __slots__ = ("body", "unreader")

    def __init__(self, wire: Wire, unreader: WireUnreader, reader: Reader) -> None:
        self.unreader = unreader
        if isinstance(reader, ChunkedReader):
            reader.parser = fair(reader.parser, wire.piece)
        self.body = wire.body = ClientBody(reader, wire)
        wire.patience.begin()

    def has_more(self) -> bool:
        """Whether some of the body, or of what comes behind it, has been received and not read."""
        return self.unreader.buf.getbuffer().nbytes > 0

    def is_read(self) -> bool:
        """Whether nothing of the body can still be on its way."""
        reader = self.body.reader
        return bool(reader.parser is None if isinstance(reader, ChunkedReader) else reader.length == 0)

    def is_here(self) -> bool:
        """Whether all of the body has been received, so that discarding it waits for nothing."""
        if self.is_read():
            return True
        reader = self.body.reader
        return isinstance(reader, LengthReader) and reader.length <= self.unreader.buf.getbuffer().nbytes

    def skip(self) -> tuple[int, bytes] | None:
        """How many bytes of the body are still to come and to be thrown away, and what has come behind it.

        None if they are too many, or nobody knows how many. Never waits.
        """
        reader, buffered = self.body.reader, self.unreader.buf.getbuffer().nbytes
        if self.is_read():
            return 0, bytes(self.unreader.take_buffered())
        if not isinstance(reader, LengthReader) or self.body.failed or reader.length - buffered > DISCARD_BYTES:
            return None
        return max(0, reader.length - buffered), bytes(self.unreader.take_buffered())[reader.length :]

    def discard(self, log: Log) -> bytes | None:
        """Read what is left of the body; returns what came behind it, None if the connection can't go on."""
        if self.body.failed:  # where the next request begins is not known
            return None
        left = DISCARD_BYTES
        try:
            while data := self.body.read(DISCARD_STEP_BYTES):
                left -= len(data)
                if left < 0:
                    return None
        except (ClientLeft, ClientTooSlow) as exc:
            log.debug("the rest of a body is not what it should be: %s", exc)
            return None
        return bytes(self.unreader.take_buffered())
