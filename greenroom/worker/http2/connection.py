"""One client's connection of HTTP/2: frames in, streams begun, frames out. All of it in the hub, or never waiting.

    IDLE ──a stream──> RUNNING ──the last one is answered──> IDLE
      └── keep-alive is over, GOAWAY, an error, a flood ──> LINGERING ──> CLOSED

While too much waits to be sent (see outgoing) nothing is read: a client that makes us answer (PING, SETTINGS) and does
not read the answers gets no others. The connection ends when nothing of it was taken for as long as the settings allow.
Streams wait for room of their own.
"""

import os
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h2.events
from gunicorn.http.errors import ParseException
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from .. import lingering
from ..request import ClientRequest
from ..running import State
from ..transport import Peer, Transport
from ..transport.parents import ParentsSocket
from ..wire import RECEIVE_BYTES
from .engine import GOING_AWAY, Engine
from .frames import Floods, Frames
from .heads import GunicornStream, gunicorns_request, plain_request
from .outgoing import Outgoing
from .response import Fields
from .stream import Stream

if TYPE_CHECKING:
    from ..listener import Listener
    from ..serving import Serving

READ = 1
# A body's bytes are allowed for again when so many have been read: half of the smallest window.
CREDIT_BYTES = 32_768


class HTTP2Connection:
    """Runs on: hub; what streams call, on their greenlets, never waits either."""

    def __init__(self, serving: "Serving", listener: "Listener", sock: Transport, peer: Peer) -> None:
        self.serving = serving
        self.listener = listener
        self.sock = sock
        self.peer = peer
        self.is_peer_trusted = serving.trusts(peer)
        self.state = State.IDLE
        self.streams: dict[int, Stream] = {}  # those that run, the answered ones included
        self.is_leaving = False
        self._has_asked_to_leave = False  # we have told the client to open no more streams
        self.engine = Engine(serving.cfg)
        self.floods = Floods()
        self._frames = Frames(self.floods)
        self._pieces: deque[bytes] = deque()
        self.out = Outgoing(
            serving.loop,
            sock,
            self.engine,
            self.floods,
            serving.settings.send_timeout_seconds,
            self._made_room,
            self._broke,
        )
        self._owed_bytes = 0
        self._last_stream_id = 0
        self._base = listener.environ | {"SERVER_PROTOCOL": "HTTP/2.0"} | peer_environ(peer)
        self.reader: Any = serving.loop.io(sock.fileno(), READ)
        self._later: Any = None

    def begin(self, received: bytes = b"") -> None:
        """Say hello; `received` has come already."""
        self.engine.initiate_connection()
        self.serving.timeouts.became_idle(self)
        self.out.flush()
        self.reader.start(self.on_readable)
        if received:
            self._take(received)
        else:
            self.on_readable()

    def begin_upgraded(self, settings: bytes, fields: Fields, body: bytes, received: bytes) -> None:
        """Begin with a request of HTTP/1.1 that asked for HTTP/2: it is the first stream (RFC 7540 3.2)."""
        self.engine.initiate_upgrade_connection(settings_header=settings)
        self.serving.timeouts.became_idle(self)
        self.out.flush()
        self.reader.start(self.on_readable)
        self._open(1, fields, is_complete=not body)
        if body and 1 in self.streams:
            self.streams[1].came(body)
            self.streams[1].completed()
        if received:
            self._take(received)

    # --- what comes

    def on_readable(self) -> None:
        if self.state == State.LINGERING:
            if lingering.drop(self.sock):
                self.close()
            return
        if self.state == State.CLOSED:
            return
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            self._take(data)
        else:
            self.close()

    def _take(self, data: bytes) -> None:
        self._pieces.extend(self._frames.pieces(data))
        self._next_piece()

    def _next_piece(self) -> None:
        """Handle one piece; the others in later turns."""
        self._stop_later()
        if self.state >= State.LINGERING:
            return
        if self._pieces:
            try:
                self._handle(self._pieces.popleft())
            except Exception:  # whatever it is, it must neither reach the hub nor leave the client waiting
                self.serving.log.exception("a connection could not be served")
                self.close()
        if self.state >= State.LINGERING:
            return
        if self._pieces:
            self.reader.stop()
            self._later = self.serving.loop.timer(0.0)
            self._later.start(self._next_piece)
        else:
            self._read_on()

    def _read_on(self) -> None:
        """Read again, unless too much waits to be sent."""
        if self.out.is_full or self._pieces:
            self.reader.stop()
        elif not self.reader.active:
            self.reader.start(self.on_readable)

    def _stop_later(self) -> None:
        if self._later is not None:
            self._later.stop()
            self._later.close()
            self._later = None

    def _handle(self, piece: bytes) -> None:
        try:
            events = self.engine.receive_data(piece)
        except ProtocolError as exc:  # h2 has said why
            self.serving.log.debug("HTTP/2 with %s failed: %s", self.peer, exc)
            self._end(None)
            return
        for event in events:
            handle = HANDLERS.get(type(event))
            if handle is not None:
                handle(self, event)
        if self.floods.are_too_many():
            self.serving.log.info("HTTP/2 with %s ends: a flood of frames that carry nothing", self.peer)
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        self.out.flush()
        if self.engine.has_said_goodbye and self.state == State.IDLE:
            self._end(ErrorCodes.NO_ERROR)

    def _request_came(self, event: Any) -> None:
        self._open(event.stream_id, event.headers, is_complete=event.stream_ended is not None)

    def _open(self, stream_id: int, fields: Fields, *, is_complete: bool) -> None:
        self._last_stream_id = max(self._last_stream_id, stream_id)
        serving = self.serving
        if len(self.streams) >= serving.cfg.http2_max_concurrent_streams:  # those that were reset run, too
            self.out.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        if self.is_leaving:
            self._ask_to_leave()
        stream = Stream(self, stream_id, is_complete=is_complete)
        request: ClientRequest
        plain = plain_request(fields, serving.parser, self._base, peer_is_trusted=self.is_peer_trusted)
        if plain is not None:
            plain.environ["wsgi.input"] = stream.open_body()
            request = plain
        else:
            try:
                head = GunicornStream(stream_id, fields, stream.trailers, stream.priority)
                made = gunicorns_request(head, serving.cfg, self.peer)
            except (ParseException, ValueError) as exc:  # of one stream, and not of the connection (RFC 9113 8.1.1)
                serving.log.debug("HTTP/2 with %s: a stream is refused: %s", self.peer, exc)
                self.out.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
                return
            stream.wants_continue = head.expect_continue and not is_complete
            made.body = stream.open_body()
            request = made
        self.streams[stream_id] = stream
        if self.state == State.IDLE:
            self.state = State.RUNNING
            serving.timeouts.forget(self)
        serving.asked.add(id(self))
        serving.offer(stream, request)

    def _data_came(self, event: Any) -> None:
        """The connection's own window is given back at once: a stream that waits must not keep out the others."""
        self._owed_bytes += event.flow_controlled_length
        if self._owed_bytes >= CREDIT_BYTES // 2:
            self.engine.increment_flow_control_window(self._owed_bytes)
            self._owed_bytes = 0
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.owed_bytes += event.flow_controlled_length - len(event.data)  # padding
            stream.came(event.data)

    def _body_ended(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.completed()

    def _trailers_came(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.trailers += [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]

    def _stream_was_reset(self, event: Any) -> None:
        if not event.remote_reset:
            self.floods.resets += 1  # the client made h2 do it, which is as good a flood as any
        stream = self.streams.get(event.stream_id)
        if stream is not None and not stream.is_over:
            stream.client_has_left()

    def _window_opened(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        for one in [stream] if stream is not None else list(self.streams.values()):
            one.has_room()

    def _settings_came(self, event: Any) -> None:
        for stream in list(self.streams.values()):
            stream.has_room()

    def _client_ended(self, event: Any) -> None:
        """GOAWAY with an error."""
        self.close()

    # --- what goes

    def took(self, stream: Stream, size: int) -> None:
        """The application has read `size` bytes of the body: as many more may come."""
        stream.owed_bytes += size
        if stream.owed_bytes >= min(CREDIT_BYTES, self.serving.cfg.http2_initial_window_size // 2) and not (
            stream.is_complete or stream.is_client_gone
        ):
            owed, stream.owed_bytes = stream.owed_bytes, 0
            self.out.allow(stream.id, owed)

    def _made_room(self) -> None:
        for stream in list(self.streams.values()):
            stream.has_room()
        self._became_idle()
        self._read_on()

    def _broke(self, why: str) -> None:
        self.serving.log.debug("HTTP/2 with %s ends: %s", self.peer, why)
        self.close()

    # --- the end

    def stream_answered(self, stream: Stream) -> None:
        """The edge has answered; the application goes on."""
        self._became_idle()

    def stream_finished(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        self._became_idle()

    def _became_idle(self) -> None:
        if self.state != State.RUNNING or any(not stream.is_over for stream in self.streams.values()):
            return
        self.out.write()
        if self.out.waiting:  # the rest of an answer, say
            return
        self.state = State.IDLE
        self.serving.timeouts.became_idle(self)
        if self.is_leaving or self.engine.has_said_goodbye:
            self._end(ErrorCodes.NO_ERROR)

    def say_goodbye(self) -> None:
        """The connection is to end: when the last stream is answered.

        Not before that, for some clients (Python's h2 is one) take GOAWAY for the end of all streams. A client that
        opens others meanwhile is told, or there might never be a last one.
        """
        self.is_leaving = True
        self._became_idle()

    def _ask_to_leave(self) -> None:
        if not self._has_asked_to_leave:
            self._has_asked_to_leave = True
            self.out.flush()
            self.out.add(GOING_AWAY)

    def begin_to_drain(self) -> None:
        """The worker stops. An idle connection is closed by and by, as those of HTTP/1.1 are."""
        self.is_leaving = True

    def close_if_idle(self) -> None:
        if self.state == State.IDLE:
            self.on_readable()
        if self.state == State.IDLE and not self._pieces:
            self._end(ErrorCodes.NO_ERROR)

    dismiss_if_slow = close_if_idle

    def _end(self, code: ErrorCodes | None) -> None:
        """Say why (None: h2 has), and close so that the client can read it."""
        if self.state >= State.LINGERING:
            return
        if code is not None:
            self.engine.close_connection(error_code=code, last_stream_id=self._last_stream_id)
        self.out.flush()
        self.out.write()
        # An idle client that still reads its last answer need not be told: closed at once, it would lose that.
        if self.out.is_closed or (self.out.waiting and self.state != State.IDLE):
            self.close()
            return
        self.out.close()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        lingering.begin(self)
        self._let_streams_go()
        self._pieces.clear()
        self._stop_later()

    def client_has_left(self) -> None:
        self.close()

    def close(self) -> None:
        if self.state == State.CLOSED:
            return
        was_lingering = self.state == State.LINGERING
        self.state = State.CLOSED
        self._stop_later()
        self.out.close()
        self.reader.stop()
        self.reader.close()
        self._pieces.clear()
        self.sock.close()
        if was_lingering:
            self.serving.timeouts.forget(self)
        else:
            self.serving.closed(self)
        self._let_streams_go()

    def _let_streams_go(self) -> None:
        """Tell all streams that their client has left."""
        for stream in list(self.streams.values()):
            if not stream.is_over:
                stream.client_has_left()

    def leave_to_parent(self) -> int:
        descriptor = self.sock.fileno()
        self.sock = self.out.sock = ParentsSocket()
        return descriptor


HANDLERS: dict[type, Callable[[HTTP2Connection, Any], None]] = {
    h2.events.RequestReceived: HTTP2Connection._request_came,
    h2.events.DataReceived: HTTP2Connection._data_came,
    h2.events.StreamEnded: HTTP2Connection._body_ended,
    h2.events.TrailersReceived: HTTP2Connection._trailers_came,
    h2.events.StreamReset: HTTP2Connection._stream_was_reset,
    h2.events.WindowUpdated: HTTP2Connection._window_opened,
    h2.events.RemoteSettingsChanged: HTTP2Connection._settings_came,
    h2.events.ConnectionTerminated: HTTP2Connection._client_ended,
}


def peer_environ(peer: Peer) -> dict[str, str]:
    """Return the environ's entries about the client's address."""
    if isinstance(peer, tuple):
        return {"REMOTE_ADDR": peer[0], "REMOTE_PORT": str(peer[1])}
    return {"REMOTE_ADDR": peer if isinstance(peer, str) else os.fsdecode(peer)}
