"""One client's connection: a state machine that the hub runs.

    IDLE ──first byte──> READING a head ──complete──> WAITING for admission ──> RUNNING ──answered──> IDLE
      │                        │                                                   │
      └──── the client left, or its time is up, or what it sent is refused ────────┴──> LINGERING ──> CLOSED

A request that ends before its application has answered is answered by the hub (see ending): its connection goes on to
LINGERING and CLOSED while its greenlet may still run.

Only RUNNING has a greenlet, a fresh one with a fresh contextvars.Context and fresh thread-locals for each request, so
nothing survives into the next request on the connection. Everything before costs a watcher and a buffer. LINGERING is
for clients that may still be sending: closed at once, the kernel would answer with a reset, and that can destroy the
answer before they have read it (RFC 9112 9.6).
"""

import contextlib
import enum
import io
import os
import socket
from typing import TYPE_CHECKING, Any

from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidProxyLine, LimitRequestHeaders

from .. import clock
from ..in_flight import Record
from . import gunicorns
from .ending import error_answer, fitting
from .fair import fair
from .head import HEAD_END, demand, has_bare_line_feed
from .proxied import ProxiedRequest as Request
from .request import PlainRequest
from .takeover import ClientsSocket
from .wire import RECEIVE_BYTES, ClientLeft, ClientTooSlow, NeedMore, Wire, WireUnreader

if TYPE_CHECKING:
    from .listener import Listener
    from .serving import Serving

# What the application left unread of a body is read and thrown away up to this size, to keep the connection.
DISCARD_BYTES = 65_536
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EMPTY_LINE = (b"\r", b"\r\n")
LONGEST_PROXY_LINE_BYTES = 107  # the PROXY protocol says so; gunicorn would wait for the end of the line for ever


class State(enum.IntEnum):
    IDLE = 0
    READING = 1
    WAITING = 2
    RUNNING = 3
    LINGERING = 4
    CLOSED = 5


class Connection:
    """A client's connection. Runs on: hub, but for `finish`, which ends a request greenlet.

    `is_client_gone` says that the client has ended its side. Mostly it has left; it may also have sent all it wants to
    (`shutdown`) and wait. Who has sent more than the request that runs waits, and gets all answers; who has not ends
    that request as far as GREENROOM_CLIENT_LEFT_ENDS says, and of what goes on still gets the answer.
    """

    __slots__ = (
        "arrived",
        "buffer",
        "is_client_gone",
        "is_peer_trusted",
        "listener",
        "peer",
        "proxy_protocol_info",
        "reader",
        "record",
        "request_count",
        "searched_from",
        "serving",
        "state",
        "unreader",
        "wire",
    )
    fails_after_end = False

    def __init__(self, serving: "Serving", listener: "Listener", sock: socket.socket, peer: Any) -> None:
        self.serving = serving
        self.listener = listener
        self.peer = peer
        self.is_peer_trusted = serving.trusts(peer)
        self.reader = serving.loop.io(sock.fileno(), 1)
        self.wire = Wire(
            sock,
            self.reader,
            self,
            body_timeout_seconds=serving.settings.body_timeout_seconds,
            send_timeout_seconds=serving.settings.send_timeout_seconds,
        )
        self.buffer = b""
        self.searched_from = 0  # where in the buffer the end of a head can begin: what is before has been looked at
        self.unreader: WireUnreader | None = None  # what the body of the running request is read from, while it has one
        self.request_count = 0
        self.proxy_protocol_info: dict[str, Any] | None = None
        self.state = State.IDLE
        self.is_client_gone = False
        self.arrived = 0.0  # when the running request's head was complete
        self.record: Record | None = None  # of the running request
        self.reader.start(self.on_readable)

    def on_readable(self) -> None:
        """Bytes have come, or the client has left."""
        if self.state > State.READING:
            if self.state == State.LINGERING:
                self._discard()
            else:
                self._look_while_busy()
            return
        try:
            data = self.wire.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            if self.buffer:
                self.buffer += data
            else:
                self.buffer = data
            self.parse()
        elif self.state == State.IDLE and self.buffer and self.buffer not in EMPTY_LINE:
            # It sent several requests at once and ended its side; _parse_rest is on its way to answer them.
            self.is_client_gone = True
            self.reader.stop()
        elif self.state == State.READING:
            self.is_client_gone = True
            self.parse()  # half a head can be wrong already, and its sender may still be listening
        else:
            self.close()

    def parse(self) -> None:
        """Offer the request in the buffer if its head is complete; else wait for more of it, or refuse it."""
        try:
            self._parse()
        except Exception:  # whatever it is, it must neither reach the hub nor leave the client waiting
            self.serving.log.exception("a connection could not be served")
            self.close(reset=True)

    def _parse(self) -> None:
        end = self.buffer.find(HEAD_END, self.searched_from) + len(HEAD_END)
        is_complete = end >= len(HEAD_END)
        # The first request may follow a PROXY line, which gunicorn knows how to read.
        if is_complete and (self.request_count or not self.serving.has_proxy_protocol):
            request = self.serving.parser.parse(
                self.buffer[:end], self.listener.environ, peer_is_trusted=self.is_peer_trusted
            )
            if request is not None:
                self._prepare(request, self.buffer[end:])
                self._offer(request)
                return
        if is_complete or self._must_be_judged():
            self._parse_as_gunicorn()
        else:
            self._wait_for_more()

    def _prepare(self, request: PlainRequest, rest: bytes) -> None:
        """Add what is this connection's to the environ of a plain request; `rest` is what came after its head."""
        environ, peer = request.environ, self.peer
        if isinstance(peer, tuple):
            environ["REMOTE_ADDR"] = peer[0]
            environ["REMOTE_PORT"] = str(peer[1])
        else:
            environ["REMOTE_ADDR"] = peer if isinstance(peer, str) else os.fsdecode(peer)
        if self.proxy_protocol_info:
            environ.update(self.serving.proxy_environ(self.proxy_protocol_info))
        if request.content_length:
            self._take_body(WireUnreader(self.wire, rest, may_wait=True), request.content_length)
            environ["wsgi.input"] = self.wire.body
        else:
            self.buffer = rest
            environ["wsgi.input"] = io.BytesIO()

    def _take_body(self, unreader: WireUnreader, content_length: int | None, body: Any = None) -> None:
        self.unreader = unreader
        self.buffer = b""
        body = Body(LengthReader(unreader, content_length)) if body is None else body
        self.wire.body = gunicorns.know_failures(body)
        reader = self.wire.body.reader
        if isinstance(reader, ChunkedReader):
            reader.parser = fair(reader.parser, self.wire.piece)
        self.wire.patience = self.wire.body_timeout_seconds

    def _parse_as_gunicorn(self) -> None:
        """Let gunicorn's parser decide: about a head that is not plain, or that is wrong already."""
        unreader = WireUnreader(self.wire, self.buffer, may_wait=False)
        try:
            self._demand_limits()
            request = Request(self.serving.cfg, unreader, self.peer, self.request_count + 1)
            demand(request, allows_no_host=self.serving.settings.allow_no_host)
        except NeedMore:
            self._wait_for_more()
            return
        except Exception as exc:  # every kind of refusal; gunicorn knows the status of each
            self.serving.refuse(self, exc)
            return
        self._take_proxy_protocol(request)
        unreader.may_wait = True
        self._take_body(unreader, None, request.body)
        # gunicorn would send "100 Continue" now; it is due when the application asks for the body, and to nobody
        # who sends none, or has sent some of it without waiting (RFC 9110 10.1.1).
        if request._expected_100_continue:
            request._expected_100_continue = False
            if not (self._is_body_read() or unreader.buf.getbuffer().nbytes):
                self.wire.interim = CONTINUE
        self._offer(request)

    def _demand_limits(self) -> None:
        """Refuse what is too long and not complete: gunicorn looks at these lengths only while it reads."""
        if self._is_too_long() and HEAD_END not in self.buffer:
            raise LimitRequestHeaders("max buffer headers")
        if self.serving.has_proxy_protocol and not self.request_count and self.buffer[:6] == b"PROXY ":
            if len(self.buffer) > LONGEST_PROXY_LINE_BYTES and b"\r\n" not in self.buffer[:LONGEST_PROXY_LINE_BYTES]:
                raise InvalidProxyLine("the line does not end")

    def _is_too_long(self) -> bool:
        """Whether there is more after the request line than all header fields may have."""
        longest = self.serving.parser.longest_head_bytes
        if len(self.buffer) <= longest:
            return False
        line_end = self.buffer.find(b"\r\n", 1)
        return 0 < line_end < len(self.buffer) - 2 - longest

    def _take_proxy_protocol(self, request: Any) -> None:
        """The PROXY line comes once; all requests of the connection are told what it said."""
        if request.proxy_protocol_info:
            self.proxy_protocol_info = request.proxy_protocol_info
        else:
            request.proxy_protocol_info = self.proxy_protocol_info

    def _must_be_judged(self) -> bool:
        """Whether to ask gunicorn about an incomplete head: it can be wrong already.

        Its request line, in its first piece; lines that end without CR; its length, and a PROXY line before it. Reading
        a head of 700 KB takes 4 ms, so not for each piece: a client that sends byte by byte must not keep us busy. A
        long one is judged when it has doubled, when it is too long, and when nothing more will come.
        """
        if self.is_client_gone or has_bare_line_feed(self.buffer, self.searched_from):
            return True
        if self.state == State.IDLE and self.buffer.find(b"\r\n", 1) > 0:
            return True
        size, parser = len(self.buffer), self.serving.parser
        if size <= parser.plain_bytes:
            return self.serving.has_proxy_protocol and not self.request_count
        known = self.searched_from + len(HEAD_END) - 1
        return known <= parser.plain_bytes or size.bit_length() > known.bit_length() or self._is_too_long()

    def _wait_for_more(self) -> None:
        if self.is_client_gone:
            self.close()
            return
        self.searched_from = max(0, len(self.buffer) - len(HEAD_END) + 1)
        if len(self.buffer) > self.serving.parser.plain_bytes and type(self.buffer) is bytes:
            # Which grows without being copied for each piece.
            self.buffer = bytearray(self.buffer)  # type: ignore[assignment]  # all that is asked of it, bytes can
        if self.state != State.READING and self.buffer not in EMPTY_LINE:  # an empty line may come before a head
            self.state = State.READING
            self.serving.timeouts.head_started(self)

    def _offer(self, request: Any) -> None:
        self.request_count += 1
        self.searched_from = 0
        self.state = State.WAITING
        self.arrived = clock.now()
        self.serving.offer(self, request)

    def _look_while_busy(self) -> None:
        """Something came while a request waits or runs: the next request, or the end of the connection."""
        self.reader.stop()  # the event is level-triggered: it would come again in every turn
        try:
            # Only a look: the bytes may be for the application, which can ask for the socket.
            self.is_client_gone = self.wire.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            self.reader.start(self.on_readable)
            return
        except OSError:
            self.is_client_gone = True
        if self.is_client_gone:
            self.client_has_left()
        else:
            self.serving.timeouts.deaf.add(self)

    def has_next_request(self) -> bool:
        """Whether the client has sent more than the running request."""
        return bool(self.buffer) or (self.is_body_here() and bool(self.wire.unread(peek=True)))

    def client_has_left(self) -> None:
        self.is_client_gone = True
        self.serving.client_left(self)

    def has_client_left(self) -> bool:
        """environ["greenroom.is_client_gone"]: whether the client has hung up, as far as the loop has noticed."""
        return self.is_client_gone

    # --- what Ending asks of the running request

    @property
    def request(self) -> Any:
        return self.serving.in_flight.get(self)

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
        if record is None or record.answer is None:
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

    def shut_down_receiving(self) -> None:
        with contextlib.suppress(OSError):  # the client was quicker
            self.wire.sock.shutdown(socket.SHUT_RD)

    def finish(self, *, is_kept: bool) -> None:
        """The request has been answered: keep the connection for the next one, or close it.

        Runs on: request greenlet, at its very end; may switch while it discards the rest of a body.
        """
        if self.state >= State.LINGERING:
            return
        self.serving.timeouts.deaf.discard(self)
        if not is_kept or self.wire.is_broken or self.wire.is_used_by_application or not self._is_body_discarded():
            self.close_gently()
            return
        self.wire.taken = None
        self.state = State.IDLE
        if self.is_client_gone and not self.buffer:
            self.buffer = self.wire.unread()  # the requests that came behind this one, and before the end
            if not self.buffer:
                self.close()
                return
        if not self.reader.active and not self.is_client_gone:  # type: ignore[attr-defined]  # the stubs miss it
            self.reader.start(self.on_readable)
        self.serving.timeouts.became_idle(self)
        if self.buffer:
            # The next request came with this one. In a later turn: a client that pipelines must not hold the hub.
            self.serving.loop.run_callback(self._parse_rest)

    def _parse_rest(self) -> None:
        if self.state == State.IDLE and self.buffer:
            self.parse()

    def _is_body_read(self) -> bool:
        """Whether nothing of the request's body can still be on its way."""
        if self.wire.body is None:
            return True
        reader = self.wire.body.reader
        return bool(reader.parser is None if isinstance(reader, ChunkedReader) else reader.length == 0)

    def is_body_here(self) -> bool:
        """Whether all of the request's body has been received, so that discarding it waits for nothing."""
        if self._is_body_read():
            return True
        assert self.wire.body is not None
        assert self.unreader is not None
        reader = self.wire.body.reader
        return isinstance(reader, LengthReader) and reader.length <= self.unreader.buf.getbuffer().nbytes

    def _is_body_discarded(self) -> bool:
        """Whether all of the request's body has been read, by the application or now by us."""
        body, unreader = self.wire.body, self.unreader
        if body is None or unreader is None:
            return True
        if body.failed:  # where the next request begins is not known
            return False
        left = DISCARD_BYTES
        try:
            while data := body.read(8192):
                left -= len(data)
                if left < 0:
                    return False
        except Exception as exc:
            self.serving.log.debug("the rest of a body is not what it should be: %s", exc)
            return False
        self.buffer = unreader.take_buffered()
        self.wire.body = self.unreader = None
        return True

    def close_if_idle(self) -> None:
        """Close, unless the next request has come: after a stall it may have been waiting for longer than the limit."""
        if self.state == State.IDLE:
            self.on_readable()
        if self.state == State.IDLE and (not self.buffer or self.buffer in EMPTY_LINE):
            self.close()

    def dismiss_if_slow(self) -> None:
        """Refuse a head that took too long, unless its rest has come in this moment."""
        if self.state == State.READING:
            self.on_readable()
        if self.state == State.READING:
            self.serving.refuse_slow_head(self)

    def close_gently(self) -> None:
        """Close so that a client that is still sending can read what it was answered."""
        if self.state >= State.LINGERING:
            return
        is_quiet = not self.buffer and (self.wire.body is None or (self._is_body_read() and not self.wire.body.failed))
        may_close = self.is_client_gone or (is_quiet and self.state == State.RUNNING)
        if (may_close and not self.wire.unread(peek=True)) or not self.wire.shut_down_sending():
            self.close()
            return
        self.serving.closed(self)
        self.state = State.LINGERING
        self.buffer = b""
        self.wire.body = self.unreader = None
        self.reader.stop()
        self.reader.start(self.on_readable)
        self.serving.timeouts.linger(self)

    def _discard(self) -> None:
        try:
            if self.wire.sock.recv(RECEIVE_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # it has been answered, and has left
        self.close()

    def close(self, *, reset: bool = False) -> None:
        if self.state == State.CLOSED:
            return
        was_lingering = self.state == State.LINGERING
        self.serving.timeouts.deaf.discard(self)
        self.state = State.CLOSED
        self.wire.close(reset=reset)
        self.buffer = b""
        self.wire.body = self.unreader = None
        if was_lingering:
            self.serving.timeouts.forget(self)
        else:
            self.serving.closed(self)
