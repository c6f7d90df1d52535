"""One stream: an exchange whose body comes, and whose answer goes, between those of others on the same connection."""

import io
from collections import deque
from typing import TYPE_CHECKING, Any
from wsgiref.types import InputStream, WSGIEnvironment

from gevent.hub import Waiter
from h2.errors import ErrorCodes

from ... import clock, deadline
from ...in_flight import Record, Wait
from ...waits.in_loop import for_any_thread
from .. import gunicorns
from ..client_errors import BodyTooSlow, ClientLeft, ClientTooSlow
from ..ending import error_answer, fitting
from ..fair import Piece
from ..head import HEAD_END
from ..incoming import ClientBody
from ..patience import Patience
from ..progress import wait_for_room
from ..request import ClientRequest
from ..shedding import SHED_BODY, SHED_HEADERS
from ..takeover import ClientsSocket
from .heads import StreamRequest
from .response import Fields, StreamResponse, wire_fields

if TYPE_CHECKING:
    from ..transport import Peer
    from .connection import HTTP2Connection

NO_SOCKET = (
    "a stream of HTTP/2 has no socket of its own: it shares the connection with other requests. An application that "
    "takes the socket, for a WebSocket say, has to be asked over HTTP/1.1"
)
CONTINUE: Fields = [(b":status", b"100")]
PAGE_TYPE = (b"content-type", b"text/html")


class Stream:
    """See Exchange. `is_over`: the client has its answer, or wants none; what comes from the application is dropped.

    `owner`, `piece`, `patience` and `body` are what ClientBody and Response ask of a wire.
    """

    __slots__ = (
        "arrived",
        "body",
        "chunks",
        "connection",
        "id",
        "is_client_gone",
        "is_complete",
        "is_over",
        "is_reset",
        "owed_bytes",
        "patience",
        "piece",
        "priority",
        "reading",
        "record",
        "trailers",
        "wants_continue",
        "writing",
    )
    interim = b""
    taken = None
    is_used_by_application = False

    def __init__(self, connection: "HTTP2Connection", stream_id: int, *, is_complete: bool) -> None:
        self.connection = connection
        self.id = stream_id
        self.is_complete = is_complete  # the body is
        self.is_over = self.is_reset = self.is_client_gone = False
        self.arrived = clock.now()
        self.record: Record | None = None
        self.chunks: deque[bytes] = deque()
        self.owed_bytes = 0  # of the body, read and not yet allowed for again
        self.trailers: list[tuple[str, str]] = []
        self.priority = (16, 0)
        self.wants_continue = False
        self.piece = Piece()
        self.patience = Patience(connection.serving.settings.body_timeout_seconds)
        self.body: ClientBody | None = None
        self.reading: Any = None  # the waiter of the greenlet that waits for the body
        self.writing: Any = None  # and of the one that waits until it may send

    @property
    def owner(self) -> "Stream":
        return self

    @property
    def peer(self) -> "Peer":
        return self.connection.peer

    @property
    def is_peer_trusted(self) -> bool:
        return self.connection.is_peer_trusted

    @property
    def request(self) -> ClientRequest | None:
        return self.connection.serving.in_flight.get(self)

    @property
    def waits_for_body(self) -> bool:
        return self.reading is not None

    # --- the request

    def open_body(self) -> InputStream:
        """environ["wsgi.input"]."""
        if self.is_complete:
            return io.BytesIO()
        self.body = ClientBody(StreamReader(self), self)  # type: ignore[arg-type]
        return self.body

    def start(self) -> None:
        """All streams of a connection run on their own."""

    def prepare(self, request: ClientRequest) -> tuple[StreamResponse, WSGIEnvironment]:
        connection = self.connection
        environ: WSGIEnvironment
        if type(request) is StreamRequest:
            environ = request.environ
            response = StreamResponse(request, None, connection.serving.cfg, self)
        else:
            response, environ = gunicorns.create(
                request, connection.peer, connection.listener.name, connection.serving.cfg, StreamResponse, self
            )
            environ["wsgi.multithread"] = True
        environ["HTTP_VERSION"] = "2"
        environ["wsgi.early_hints"] = response.early_hints
        environ["gunicorn.http2.send_trailers"] = response.send_trailers
        environ["gunicorn.http2.priority_weight"], environ["gunicorn.http2.priority_depends_on"] = self.priority
        environ["gunicorn.socket"] = ClientsSocket(self)
        environ["greenroom.is_client_gone"] = self.has_client_left
        return response, environ

    def has_client_left(self) -> bool:
        return self.is_client_gone

    def take_over(self, taken: ClientsSocket) -> Any:
        raise ConnectionError(NO_SOCKET)

    def look(self, name: str) -> Any:
        return getattr(self.connection.sock, name)

    def shut_down_receiving(self) -> None:
        """Do nothing: no application takes the connection of a stream."""

    # --- the body

    def came(self, data: bytes) -> None:
        """Runs on: hub."""
        if data and not self.is_over:
            self.chunks.append(data)
            self.patience.came(len(data))
            self._wake_reader()

    def completed(self) -> None:
        """All of the body has come. Runs on: hub."""
        self.is_complete = True
        self._wake_reader()

    def _wake_reader(self) -> None:
        waiter, self.reading = self.reading, None
        if waiter is not None:
            self.connection.serving.loop.run_callback(waiter.switch, None)

    @for_any_thread
    def receive(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end. Raises BodyTooSlow, ClientLeft. Runs on: request greenlet; switches."""
        try:
            data = self._receive(size)
        except (ClientLeft, ClientTooSlow) as exc:
            if not self.is_over:
                self.body_failed(exc)
            raise
        self.piece.did(len(data))
        return data

    def _receive(self, size: int) -> bytes:
        while not self.chunks:
            if self.is_over:
                raise ClientLeft("the request was answered before its body had been read")
            if self.is_client_gone:
                raise ClientLeft("the client left before its body was complete")
            if self.is_complete:
                return b""
            if self.wants_continue:
                self.wants_continue = False
                self.connection.out.send_head(self.id, CONTINUE, ends=False)
            self._wait_for_more()
        data = self.chunks.popleft()
        if len(data) > size:
            self.chunks.appendleft(data[size:])
            data = data[:size]
        self.connection.took(self, len(data))
        return data

    def _wait_for_more(self) -> None:
        self.piece.waited()
        waiter = self.reading = Waiter()
        try:
            self.patience.wait(waiter)
        finally:
            self.reading = None
        if self.is_over:
            raise BodyTooSlow("the request ended before the rest of its body came")

    # --- the answer

    @for_any_thread
    def send(self, fields: Fields | None, data: bytes, *, ends: bool) -> None:
        """A head, if `fields` are given, and `data`. Raises ClientTooSlow, ClientLeft.

        Runs on: request greenlet; switches where the client, or the connection, has no room.
        """
        self._demand_client()
        out = self.connection.out
        if fields is not None:
            out.send_head(self.id, fields, ends=ends and not data, flushes=not data)
        elif not data and ends:
            out.send_data(self.id, b"", ends=True)
        rest = memoryview(data)
        while rest:
            room = out.room_for(self.id)
            if room <= 0:
                out.flush()
                self._wait_for_room()
                continue
            part, rest = rest[:room], rest[room:]
            out.send_data(self.id, bytes(part), ends=ends and not rest)
            self.piece.did(len(part))
            self._demand_client()

    def _demand_client(self) -> None:
        if self.is_client_gone:
            raise ClientLeft("the client left before its answer was complete")
        if self.is_over:
            raise ClientLeft("the request has been answered")

    def _wait_for_room(self) -> None:
        """Wait until the client allows for more, and the connection takes it."""
        self.piece.waited()
        # An answer that has begun is sent, however late it is.
        with deadline.unbounded(), Wait("client", "answer"):
            if not wait_for_room(self.connection.out.progress(), self._has_room_within):
                raise ClientTooSlow("the client did not take the answer in time")

    def _has_room_within(self, seconds: float) -> bool:
        """Whether it is worth while to look again, or there is room."""
        is_woken = self._is_woken_within(seconds)
        self._demand_client()
        return is_woken or self.connection.out.room_for(self.id) > 0  # a client may make it less than none

    def _is_woken_within(self, seconds: float) -> bool:
        waiter = self.writing = Waiter()
        timer: Any = self.connection.serving.loop.timer(seconds)
        timer.start(waiter.switch, False)
        try:
            return waiter.get() is not False
        finally:
            self.writing = None
            timer.stop()
            timer.close()

    def has_room(self) -> None:
        """It may be worth while to look again. Runs on: hub."""
        waiter, self.writing = self.writing, None
        if waiter is not None:
            self.connection.serving.loop.run_callback(waiter.switch, None)

    def _send_whole(self, status: int, headers: Fields, body: bytes) -> bool:
        """An answer of ours, as far as the client allows for it at once. Never waits."""
        if self.is_client_gone or self.is_over:
            return False
        fields = [(b":status", str(status).encode()), *headers, (b"content-length", str(len(body)).encode())]
        fits = not body or self.connection.out.room_for(self.id) >= len(body)
        if fits:
            self.connection.out.send_head(self.id, fields, ends=not body, flushes=not body)
            if body:
                self.connection.out.send_data(self.id, body, ends=True)
        else:
            self.connection.out.send_head(self.id, fields[:-1], ends=True)
        return True

    def send_page(self, page: bytes) -> bool:
        return self._send_whole(int(page[9:12]), [PAGE_TYPE], page[page.index(HEAD_END) + len(HEAD_END) :])

    def shed(self, request: ClientRequest, *, is_kept: bool) -> None:
        headers = wire_fields(list(SHED_HEADERS[:-1]))
        self._send_whole(503, headers, b"" if request.method == "HEAD" else SHED_BODY)
        if not is_kept:
            self.connection.say_goodbye()
        self.finish(is_kept=is_kept)

    # --- the end

    def finish(self, *, is_kept: bool) -> None:
        self._end()
        self.connection.stream_finished(self)

    def break_off(self) -> None:
        if not self.is_over and not self.is_client_gone:
            self.connection.out.reset(self.id, ErrorCodes.INTERNAL_ERROR)
        self.is_over = True
        self.connection.stream_finished(self)

    def leave_line(self) -> None:
        self.is_over = True
        self.connection.stream_finished(self)

    def drop(self, status: str) -> bool:
        return self.record is not None and bool(self.record.answer.drop(status))

    def answer(self, code: int, reason: str, detail: str) -> None:
        self.send_page(fitting(error_answer(code, reason, detail), self.request))
        self._end()
        self._wake()
        self.connection.stream_answered(self)

    def leave(self) -> None:
        if not self.is_client_gone:
            self.connection.out.reset(self.id, ErrorCodes.INTERNAL_ERROR)
        self.is_over = True
        self._wake()
        self.connection.stream_answered(self)

    def _end(self) -> None:
        """The answer is complete: a client that still sends the body may stop (RFC 9113 8.1)."""
        if not self.is_over and not self.is_client_gone and not self.is_complete:
            self.connection.out.reset(self.id, ErrorCodes.NO_ERROR)
        self.is_over = True
        self.chunks.clear()

    def _wake(self) -> None:
        self._wake_reader()
        self.has_room()

    def client_has_left(self) -> None:
        """The client has reset the stream, or the connection is gone. Runs on: hub."""
        if self.is_client_gone:
            return
        self.is_client_gone = self.is_reset = True
        self._wake()
        serving = self.connection.serving
        serving.client_left(self)
        if self.request is None and serving.admission.find(self) is None:  # it came in this very turn
            self.leave_line()

    def request_ended(self, record: Record) -> None:
        self.connection.serving.ending.end(self, record)

    def body_failed(self, exc: ClientLeft | ClientTooSlow) -> None:
        self.connection.serving.ending.body_failed(self, exc)


class StreamReader:
    """The reader under gunicorn's body."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def read(self, size: int) -> bytes:
        return self.stream.receive(size)
