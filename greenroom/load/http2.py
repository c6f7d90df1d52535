"""HTTP/2, by the h2 package: many requests at once on a connection, over TLS (ALPN) or with prior knowledge."""

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .connection import OPEN, READ, RECEIVE_BYTES, Connection, PendingRequest, kind_of
from .units import LoadError
from .wire import Garbled, Head

if TYPE_CHECKING:
    from .engine import Engine

MOST_STREAMS = 100
_NOT_SENT = ("host", "connection", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection")


class StreamAnswer:
    """The answer on one stream, as far as it has come."""

    __slots__ = ("_pieces", "_tail", "body_bytes", "events", "head")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.body_bytes = 0
        self.events = 0
        self._pieces: list[bytes] = []
        self._tail = b""

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        fields = {name.lower(): value for name, value in headers}
        status = fields.get(b":status", b"")
        if not status.isdigit():
            raise Garbled("no HTTP answer")
        raw = b"\r\n".join(
            [b"HTTP/2 " + status, *(name + b": " + value for name, value in headers if name[:1] != b":")]
        )
        self.head = Head(
            int(status),
            None,
            False,
            True,
            b"retry-after" in fields,
            fields.get(b"location", b"").decode("latin-1"),
            fields.get(b"content-type", b"").startswith(b"text/event-stream"),
            raw,
        )

    def take(self, piece: bytes, largest_bytes: int, *, keeps_body: bool) -> None:
        self.body_bytes += len(piece)
        if self.body_bytes > largest_bytes:
            raise Garbled("an answer too large")
        if self.head is not None and self.head.is_event_stream:
            both = (self._tail + piece).replace(b"\r\n", b"\n")
            self.events += both.count(b"\n\n")
            self._tail = both[-1:] if not both.endswith(b"\n\n") else b""
        if keeps_body:
            self._pieces.append(piece)


class Http2Connection(Connection):
    """Takes requests while it has fewer than MOST_STREAMS under way, or than the server allows."""

    __slots__ = ("_bodies", "_h2", "_streams", "_waiting_for_open")

    def __init__(self, engine: "Engine") -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection

        super().__init__(engine)
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None, validate_inbound_headers=True))
        self._streams: dict[int, tuple[PendingRequest, StreamAnswer]] = {}
        self._bodies: dict[int, bytes] = {}
        self._waiting_for_open: list[PendingRequest] = []

    def open(self, call: PendingRequest) -> None:
        self._waiting_for_open.append(call)
        super().open(call)

    def _ready(self) -> None:
        if self.engine.tls is not None and self.sock.selected_alpn_protocol() != "h2":  # type: ignore[attr-defined]
            raise Garbled("no HTTP/2 (ALPN)")
        self._state = OPEN
        self._out = b""
        self.call = None
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(2**24)
        waiting, self._waiting_for_open = self._waiting_for_open, []
        self._watch(READ)
        for call in waiting:
            self._begin(call)
        self._flush()
        self.engine.reuse(self)

    def start(self, call: PendingRequest) -> None:
        from h2.exceptions import H2Error

        call.connection = self
        try:
            self._begin(call)
            self._flush()
        except OSError as exc:
            self.fail(kind_of(exc))
        except H2Error:
            self.fail("no HTTP/2")
        else:
            self.engine.reuse(self)

    def _begin(self, call: PendingRequest) -> None:
        prepared = call.prepared
        stream = self._h2.get_next_available_stream_id()
        headers = [
            (":method", prepared.method),
            (":path", prepared.path),
            (":scheme", self.engine.target.scheme),
            (":authority", self.engine.target.authority),
            *((name.lower(), value) for name, value in prepared.headers if name.lower() not in _NOT_SENT),
        ]
        self._streams[stream] = (call, StreamAnswer())
        self._h2.send_headers(stream, headers, end_stream=not prepared.body)
        if prepared.body:
            self._bodies[stream] = prepared.body
            self._send_bodies()

    def _send_bodies(self) -> None:
        """Send as much of the bodies as the server's windows allow."""
        for stream, body in list(self._bodies.items()):
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            while body and room > 0:
                piece, body = body[:room], body[room:]
                self._h2.send_data(stream, piece, end_stream=not body)
                room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if body:
                self._bodies[stream] = body
            else:
                del self._bodies[stream]

    def _flush(self) -> None:
        self._out += self._h2.data_to_send()
        if self._out:
            self._send()

    def _receive(self) -> None:
        from h2.exceptions import H2Error

        while True:
            try:
                data = self.sock.recv(RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                self.fail("closed without an answer")
                return
            try:
                events = self._h2.receive_data(data)
            except H2Error as exc:
                raise Garbled("no HTTP/2") from exc
            for event in events:
                self._on(event)
            self._send_bodies()
            self._flush()
            if self.engine.tls is None:
                return

    def _on(self, event: Any) -> None:
        from h2 import events

        if isinstance(event, events.ResponseReceived):
            self._answer(event.stream_id, lambda call, answer: answer.begin(event.headers or []))
        elif isinstance(event, events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            self._answer(event.stream_id, lambda call, answer: self._take(event, call, answer))
        elif isinstance(event, events.StreamEnded):
            self._complete_stream(event.stream_id)
        elif isinstance(event, events.StreamReset):
            self._fail_stream(event.stream_id, "connection reset")
        elif isinstance(event, events.ConnectionTerminated):
            self.fail("closed without an answer")

    def _answer(self, stream: int, act: Callable[[PendingRequest, StreamAnswer], None]) -> None:
        """Do something with a stream's answer, if anybody still waits for it."""
        found = self._streams.get(stream)
        if found is None:
            return
        try:
            act(*found)
        except Garbled as exc:
            self._h2.reset_stream(stream)
            self._fail_stream(stream, str(exc))

    def _take(self, event: Any, call: PendingRequest, answer: StreamAnswer) -> None:
        answer.take(event.data or b"", self.engine.largest_bytes, keeps_body=call.prepared.reads_body)
        if answer.events >= (call.prepared.events or 1) and answer.head is not None and answer.head.is_event_stream:
            self._h2.reset_stream(event.stream_id)
            self._complete_stream(event.stream_id)

    def _complete_stream(self, stream: int) -> None:
        found = self._streams.pop(stream, None)
        if found is None:
            return
        call, answer = found
        call.connection = None
        if answer.head is None:
            self.engine.failed(call, "closed without an answer")
        else:
            self.engine.answered(self, call, answer)

    def _fail_stream(self, stream: int, kind: str) -> None:
        found = self._streams.pop(stream, None)
        self._bodies.pop(stream, None)
        if found is not None:
            found[0].connection = None
            self.engine.failed(found[0], kind)
            self.engine.reuse(self)

    @property
    def can_take_another(self) -> bool:
        allowed = min(MOST_STREAMS, self._h2.remote_settings.max_concurrent_streams)
        return self._state == OPEN and len(self._streams) < allowed

    def give_up(self, call: PendingRequest, kind: str) -> None:
        """Only this request's stream ends; the others go on."""
        for stream, (one, _) in self._streams.items():
            if one is call:
                self._h2.reset_stream(stream)
                self._fail_stream(stream, kind)
                try:
                    self._flush()
                except OSError as exc:
                    self.fail(kind_of(exc))
                return
        self.fail(kind)

    def fail(self, kind: str) -> None:
        calls = [call for call, _ in self._streams.values()] + self._waiting_for_open
        self._streams.clear()
        self._waiting_for_open = []
        self.call = None
        self.close()
        for call in calls:
            call.connection = None
            self.engine.failed(call, kind)


def connection_maker() -> "Callable[[Engine], Connection]":
    """Raises LoadError when h2 is not installed."""
    try:
        import h2.connection  # noqa: F401
    except ImportError as exc:
        raise LoadError("--http2 needs the h2 package: pip install 'greenroom[http2]'") from exc
    return Http2Connection
