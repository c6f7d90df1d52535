"""The answer to a request of ours: urllib3's HTTPResponse over http.client's, both only as far as needed.

    head as usual, body all there    -> its pieces are handed out; http.client's response is made if somebody wants it
    head as usual, body still comes  -> http.client's response, made from our head, reads on from the connection
    anything else                    -> http.client's response has read the head, too

So `raw` is what it always was, and what is unusual is read by whom it always was.
"""

import logging
from http.client import HTTPMessage, HTTPResponse
from inspect import signature
from io import BytesIO
from operator import methodcaller
from typing import Any

import urllib3.connection
from urllib3._collections import HTTPHeaderDict
from urllib3.exceptions import HeaderParsingError
from urllib3.response import BytesQueueBuffer
from urllib3.util import Url
from urllib3.util.response import assert_header_parsing

from .connection import Connection
from .head import Head
from .pool import Origin
from .reader import Reader

# urllib3 before 2.8 takes a message's items as they are.
header_values: Any = getattr(urllib3.connection, "_normalize_header_values", methodcaller("items"))
logger = logging.getLogger("urllib3.connection")  # which says the same, and says it to nobody unless asked


class Exchange:
    """One request and its answer on a connection: the answer's right to read, until its end or until it is closed.

    urllib3's response calls it its connection, and closes it or gives it back to its pool.
    """

    __slots__ = ("connection", "reader", "response")

    def __init__(self, connection: Connection, reader: Reader) -> None:
        self.connection: Connection | None = connection
        self.reader = reader
        self.response: HTTPResponse | None = None

    def close(self) -> None:
        """Nobody reads on: the rest of this answer must not be taken for the next one's."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def finish(self) -> None:
        """The connection is free if the answer was read to its end, and is closed if not."""
        connection = self.connection
        if connection is None:
            return
        is_more_there = connection.position < len(connection.received)
        if not self._is_complete() or connection.is_closed or is_more_there:
            if is_more_there and self._is_complete():
                connection.owner.distrust()
            self.close()
            return
        self.connection = None
        connection.received = b""
        connection.position = 0
        connection.owner.give_back(connection)

    def _is_complete(self) -> bool:
        response, reader = self.response, self.reader
        if response is None or response.will_close or reader.is_at_end or response.status < 200:
            return False  # after 101 it speaks another protocol
        if response.chunked:
            return reader.last_line in (b"\r\n", b"\n")
        return response.length == 0

    @property
    def sock(self) -> Any:
        """The socket, for those who look at the other side's address or certificate; None once it is given back."""
        return None if self.connection is None else self.connection.sock

    def shutdown(self, how: int) -> None:
        """End the reading from another greenlet, as urllib3's `shutdown()` does."""
        if self.connection is not None:
            self.connection.sock.shutdown(how)


# Some came with urllib3 2.3.
PARAMETERS = frozenset(signature(urllib3.HTTPResponse.__init__).parameters)


class Files:
    """A stand-in for the socket that http.client asks for a file."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def makefile(self, mode: str) -> Any:
        return self.file


class Answer(urllib3.HTTPResponse):
    """A response that has its body already. The class holds what is the same for all, to make one cheap."""

    decode_content = False
    _has_decoded_content = False
    _decoder = None
    _decoder_initialized = False
    enforce_content_length = True
    auto_close = True
    _body = None
    _uncached_read_occurred = False
    msg = None
    _sock_shutdown = None
    chunk_left = None
    version = 11
    version_string = "HTTP/1.1"

    def __init__(self, head: Head, origin: Origin, method: str, path: str, adapter: Any, pieces: list[bytes]) -> None:
        # Not super().__init__(): it costs as much as all the rest of reading an answer. A test compares the attributes.
        self.head = head
        self.status = head.status
        self.reason = head.reason
        self.chunked = "transfer-encoding" in head.fields
        self._request_url = path
        self._pool = origin  # type: ignore[assignment]
        self._connection = None
        self._adapter = adapter
        self._method = method
        # The rest of the body, in the pieces that stream() gives; None once all is taken.
        self._left: list[bytes] | None = pieces
        self._fp_bytes_read = 0
        self.length_remaining = None if self.chunked else len(pieces[0]) if pieces else 0
        # Said by the head, so cookies need not be looked for elsewhere.
        self.sets_cookies = "set-cookie" in head.fields or "set-cookie2" in head.fields

    def __getattr__(self, name: str) -> Any:
        """Make attributes that few ask for at their first use."""
        if name == "headers":
            self.headers = headers = HTTPHeaderDict()
            headers._container = {key: list(values) for key, values in self.head.fields.items()}
            return headers
        if name in ("_fp", "_original_response"):
            left = self._left
            pieces = left or []
            wire = (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) if self.chunked else pieces
            file = BytesIO(b"".join(wire) + (b"0\r\n\r\n" if self.chunked else b""))
            self._original_response = response = client_response(self.head, self._method, file, chunked=self.chunked)
            if not self.chunked:
                response.length = self.length_remaining
            if left is None:
                response.close()
            self._left = None
            self._fp = response
            return response
        if name == "_retries":
            self._retries = retries = self._adapter.max_retries
            return retries
        if name == "_decoded_buffer":
            self._decoded_buffer = buffer = BytesQueueBuffer()
            return buffer
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def stream(self, amt: int | None = 65_536, decode_content: bool | None = None) -> Any:
        is_simple = (
            self._left is not None
            and "content-encoding" not in self.head.fields
            and (amt is None or amt > 0 and not (self.chunked and any(len(piece) > amt for piece in self._left)))
        )
        return self._stream(amt, decode_content) if is_simple else super().stream(amt, decode_content)

    def _stream(self, amt: int | None, decode_content: bool | None) -> Any:
        """The pieces, as long as nobody reads in another way meanwhile."""
        self._decoder_initialized = True
        self._uncached_read_occurred = True
        while self._left:
            piece = self._left.pop(0)
            if amt is not None and len(piece) > amt:
                self._left = [piece[start : start + amt] for start in range(amt, len(piece), amt)]
                piece = piece[:amt]
            if self.length_remaining is not None:
                self._fp_bytes_read += len(piece)
                self.length_remaining -= len(piece)
            if not self._left:
                self._left = None
            yield piece
        if self._left is not None:
            self._left = None  # there was nothing from the start
        elif "_fp" in self.__dict__:
            yield from super().stream(amt, decode_content)

    def take_whole(self) -> bytes | None:
        """Return all pieces of stream() at once; None if it has to be asked."""
        left = self._left
        if left is None or "content-encoding" in self.head.fields or (self.chunked and len(left) > 1):
            return None
        content = b"".join(left)
        self._decoder_initialized = True
        self._uncached_read_occurred = True
        if self.length_remaining is not None:
            self._fp_bytes_read = len(content)
            self.length_remaining = 0
        self._left = None
        return content

    @property
    def closed(self) -> bool:
        if "_fp" in self.__dict__:
            return bool(urllib3.HTTPResponse.closed.__get__(self))
        return self._left is None

    def close(self) -> None:
        if "_fp" in self.__dict__:
            super().close()
        else:
            self._left = None

    def release_conn(self) -> None:
        """Nothing: the connection went back when the body was there."""


class StreamedAnswer(urllib3.HTTPResponse):
    """A response whose body still comes."""

    def __init__(
        self, response: HTTPResponse, exchange: Exchange, origin: Origin, method: str, path: str, retries: Any
    ) -> None:
        exchange.response = response
        # "HTTP/1.1" is what urllib3 says of every version.
        newer: dict[str, Any] = {"version_string": "HTTP/1.1", "sock_shutdown": exchange.shutdown}
        self.sets_cookies = "set-cookie" in response.msg or "set-cookie2" in response.msg
        super().__init__(
            body=response,
            headers=HTTPHeaderDict(header_values(response.msg)),
            status=response.status,
            version=response.version,
            reason=response.reason,
            preload_content=False,
            decode_content=False,
            original_response=response,
            enforce_content_length=True,
            request_method=method,
            request_url=path,
            retries=retries,
            connection=exchange,  # type: ignore[arg-type]
            pool=origin,  # type: ignore[arg-type]
            **{name: value for name, value in newer.items() if name in PARAMETERS},
        )


def client_response(head: Head, method: str, file: Any, *, chunked: bool) -> HTTPResponse:
    """http.client's response with `head` read already, the body to be read from `file`."""
    response: Any = HTTPResponse(Files(file), method=method)  # type: ignore[arg-type]
    message: Any = HTTPMessage()
    message._headers = head.items()
    response.headers = response.msg = message
    response.version = 11
    response.code = response.status = head.status
    response.reason = head.reason
    response.chunked = chunked
    response.chunk_left = None
    response.will_close = closes(head)
    length = head.fields.get("content-length")
    if head.status in (204, 304) or method == "HEAD":
        response.length = 0
    elif chunked or length is None:
        response.length = None
        response.will_close = response.will_close or not chunked
    else:
        response.length = int(length[1])
    made: HTTPResponse = response
    return made


def closes(head: Head) -> bool:
    connection = head.fields.get("connection")
    return connection is not None and "close" in connection[1].lower()


def check_parsing(response: HTTPResponse, origin: Origin, path: str) -> None:
    """Warn of a head that could not be understood in full, as urllib3 does."""
    try:
        assert_header_parsing(response.msg)
    except (HeaderParsingError, TypeError) as exc:
        url = Url(scheme=origin.scheme, host=origin.host, port=origin.port, path=path).url
        logger.warning("Failed to parse headers (url=%s): %s", url, exc, exc_info=True)
