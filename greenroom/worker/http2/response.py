"""The WSGI response of a stream: what Response does, written as frames."""

from typing import TYPE_CHECKING, Any

from ...gunicorns_parts import Config
from ...insight.timing import head_fields
from ..gunicorns import demand_valid
from ..request import ClientRequest
from ..response import REMEMBERED_NAMES, Response, http_date

if TYPE_CHECKING:
    from .stream import Stream

Fields = list[tuple[bytes, bytes]]
# Names as HTTP/2 wants them, of headers that passed the check.
_names: dict[str, bytes] = {}
# Of one connection, which is not this stream's (RFC 9113 8.2.2); gunicorn lets this one pass for WebSockets.
NOT_HERE = (b"upgrade",)


class StreamResponse(Response):
    """Runs on: request greenlet; switches where the client is slow."""

    wire: Any

    def __init__(self, req: ClientRequest, sock: None, cfg: Config, stream: "Stream") -> None:
        super().__init__(req, sock, cfg, stream)  # type: ignore[arg-type]
        self.stream = stream
        self.trailers: list[tuple[str, str]] = []
        self._fields: Fields | None = None  # of a head that is ready, and that nothing has carried yet
        self._has_ended = False

    def is_chunked(self) -> bool:
        return False

    def force_close(self) -> None:
        """This connection is to get no other request."""
        self.stream.connection.say_goodbye()

    @property
    def is_head_on_wire(self) -> bool:
        return self.headers_sent and self._fields is None

    def _head(self) -> bytes:
        self.is_last = False
        fields = [(b":status", str(self.status_code).encode())]
        names = {name.lower() for name, _ in self.headers}
        if "server" not in names:
            fields.append((b"server", self.version.encode()))
        if "date" not in names:
            fields.append((b"date", http_date().encode()))
        fields += wire_fields(self.headers)
        if self.account is not None:
            fields += wire_fields(head_fields(self.account, self.headers, has_timing=self.has_timing))
        self._fields = fields
        return b""

    def _emit_body(self, data: bytes) -> None:
        fields, self._fields = self._fields, None
        # Where the length says that this is all, the same frame ends the stream.
        self._has_ended = self.response_length is not None and self.sent >= self.response_length and not self.trailers
        self.stream.send(fields, data, ends=self._has_ended)

    def flush(self) -> None:
        fields, self._fields = self._fields, None
        if fields is not None:
            self.stream.send(fields, b"", ends=False)

    def close(self) -> None:
        if not self.headers_sent and not self.is_dropped:
            self.send_headers()
        self.is_whole = not self.is_dropped and not self.is_short
        if not self.is_whole or self._has_ended:
            return
        self._has_ended = True
        fields, self._fields = self._fields, None
        if self.trailers:
            self.stream.send(fields, b"", ends=False)
            self.stream.send(list(wire_fields(self.trailers)), b"", ends=True)
        else:
            self.stream.send(fields, b"", ends=True)

    def sendfile(self, respiter: Any) -> bool:
        return False

    def send_trailers(self, trailers: list[tuple[str, str]]) -> None:
        """environ["gunicorn.http2.send_trailers"]: they end the answer."""
        demand_valid(trailers)
        self.trailers = list(trailers)

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """environ["wsgi.early_hints"]."""
        if self.req is None or self.is_dropped or self.headers_sent:
            return
        demand_valid(headers)
        self.stream.send([(b":status", b"103"), *wire_fields(headers)], b"", ends=False)


def wire_fields(headers: list[tuple[str, str]]) -> Fields:
    fields = []
    for name, value in headers:
        key = _names.get(name)
        if key is None:
            key = name.lower().encode("latin-1")
            if len(_names) < REMEMBERED_NAMES:
                _names[name] = key
        if key not in NOT_HERE:
            fields.append((key, value.encode("latin-1")))
    return fields
