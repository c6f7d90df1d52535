"""The running request of an HTTP/1.1 connection: what admission, the request cycle and its end ask of it."""

import contextlib
import enum
import socket
from typing import TYPE_CHECKING, Any
from wsgiref.types import WSGIEnvironment

from ..in_flight import Record
from . import gunicorns
from .client_errors import ClientLeft, ClientTooSlow
from .ending import error_answer, fitting
from .incoming import Incoming
from .request import ClientRequest, PlainRequest
from .response import Response
from .shedding import SHED_ANSWERS
from .takeover import ClientsSocket
from .transport import Peer, Transport
from .wire import Wire

if TYPE_CHECKING:
    from .listener import Listener
    from .serving import Serving


class State(enum.IntEnum):
    IDLE = 0
    READING = 1
    WAITING = 2
    RUNNING = 3
    LINGERING = 4
    CLOSED = 5


class RunningRequest:
    """One half of a connection: see Exchange. The other half reads heads, and decides whether it is kept."""

    __slots__ = ("buffer", "incoming", "skip_bytes")
    is_reset = False

    serving: "Serving"
    listener: "Listener"
    peer: Peer
    is_peer_trusted: bool
    arrived: float
    record: Record | None
    buffer: bytes  # what has come and is not a request yet
    incoming: Incoming | None  # the body, while there is one
    skip_bytes: int  # of a body that nobody wants, and that is still to come
    reader: Any
    state: State
    wire: Wire

    def start(self) -> None:
        raise NotImplementedError

    def finish(self, *, is_kept: bool) -> None:
        raise NotImplementedError

    def close(self, *, reset: bool = False) -> None:
        raise NotImplementedError

    def close_gently(self) -> None:
        raise NotImplementedError

    def has_client_left(self) -> bool:
        raise NotImplementedError

    @property
    def sock(self) -> Transport:
        return self.wire.sock

    @property
    def request(self) -> ClientRequest | None:
        return self.serving.in_flight.get(self)

    @property
    def is_used_by_application(self) -> bool:
        return self.wire.is_used_by_application

    def prepare(self, request: ClientRequest) -> tuple[Response, WSGIEnvironment]:
        serving = self.serving
        environ: WSGIEnvironment
        if type(request) is PlainRequest:
            environ = request.environ
            response = Response(request, None, serving.cfg, self.wire)
        else:
            response, environ = gunicorns.create(
                request, self.peer, self.listener.name, serving.cfg, Response, self.wire
            )
            environ["wsgi.multithread"] = True
        environ["wsgi.early_hints"] = response.early_hints
        environ["gunicorn.socket"] = ClientsSocket(self)
        environ["greenroom.is_client_gone"] = self.has_client_left
        if not serving.has_keepalive:
            response.force_close()
        return response, environ

    def send_page(self, page: bytes) -> bool:
        return self.wire.try_send(page)

    def shed(self, request: ClientRequest, *, is_kept: bool) -> None:
        is_kept = is_kept and not request.should_close() and self.skip_body()
        # Behind half an answer the client would take the next one for its rest.
        is_whole = self.wire.try_send(SHED_ANSWERS[is_kept, request.method == "HEAD"])
        self.finish(is_kept=is_kept and is_whole)

    def break_off(self) -> None:
        self.close(reset=True)

    def leave_line(self) -> None:
        self.close()

    @property
    def waits_for_body(self) -> bool:
        return self.wire.waiter is not None

    def drop(self, status: str) -> bool:
        return self.record is not None and bool(self.record.answer.drop(status))

    def answer(self, code: int, reason: str, detail: str) -> None:
        """Runs on: hub, request greenlet; never waits."""
        page = fitting(error_answer(code, reason, detail), self.request)
        # Behind half of something, and what is not written whole, is no answer.
        is_whole = not self.wire.is_sending and self.wire.try_send(page)
        self.wire.end()
        if is_whole:
            self.close_gently()
        else:
            self.close(reset=True)

    def leave(self) -> None:
        self.wire.end()
        self.close(reset=True)

    def request_ended(self, record: Record) -> None:
        """The running request's time is over, or it was cut: see Record.on_end. Runs on: hub."""
        self.serving.ending.end(self, record)

    def body_failed(self, exc: ClientLeft | ClientTooSlow) -> None:
        """The rest of the running request's body does not come. Runs on: request greenlet."""
        self.serving.ending.body_failed(self, exc)

    def take_over(self, taken: ClientsSocket) -> Any:
        """The running request's application uses the socket: see takeover. Runs on: request greenlet, or any thread."""
        record = self.record
        if record is None or record.answer is None or record is not taken.record:
            raise ClientLeft("the request is over")
        if record.is_spent():
            self.request_ended(record)
        if self.wire.is_over:
            raise ClientLeft(f"the request has been answered: {record.why()}")
        self.serving.taken_over(record, taken)
        self.reader.stop()
        self.serving.timeouts.deaf.discard(self)
        self.wire.taken = taken
        return self.wire.open_green()

    def look(self, name: str) -> Any:
        return getattr(self.wire.sock, name)

    def shut_down_receiving(self) -> None:
        with contextlib.suppress(OSError):  # the client was quicker
            self.wire.sock.shutdown(socket.SHUT_RD)

    # --- its body

    def _is_body_read(self) -> bool:
        """Whether nothing of the request's body can still be on its way."""
        return self.incoming is None or self.incoming.is_read()

    def is_body_here(self) -> bool:
        """Whether all of the request's body has been received."""
        return self.incoming is None or self.incoming.is_here()

    def keep(self, data: bytes) -> bool:
        """Put `data` behind what has come, less what is to be skipped; whether anything is left of it."""
        if self.skip_bytes:
            skipped = min(self.skip_bytes, len(data))
            self.skip_bytes -= skipped
            data = data[skipped:]
        if self.buffer:
            self.buffer += data
        else:
            self.buffer = data
        return bool(data)

    def skip_body(self) -> bool:
        """Throw away the body of a request that is turned away, as it comes; False if that is not to be."""
        if self.incoming is None:
            return True
        skipped = self.incoming.skip() if not self.wire.interim else None
        if skipped is None:
            return False
        self.skip_bytes, self.buffer = skipped
        self._forget_body()
        return True

    def _is_body_discarded(self) -> bool:
        """Whether all of the request's body has been read, by the application or now by us."""
        if self.incoming is None:
            return True
        rest = self.incoming.discard(self.serving.log)
        if rest is None:
            return False
        self.buffer = rest
        self._forget_body()
        return True

    def _forget_body(self) -> None:
        self.wire.body = self.incoming = None
