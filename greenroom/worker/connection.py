"""One client's connection of HTTP/1.1: a state machine that the hub runs.

    IDLE ──first byte──> READING a head ──complete──> WAITING for admission ──> RUNNING ──answered──> IDLE
      │                        │                                                   │
      └──── the client left, or its time is up, or what it sent is refused ────────┴──> LINGERING ──> CLOSED

A request that ends before its application has answered is answered by the hub (see ending): its connection goes on to
LINGERING and CLOSED while its greenlet may still run.

Only RUNNING has a greenlet, a fresh one with a fresh contextvars.Context and fresh thread-locals for each request, so
nothing survives into the next request on the connection. Everything before costs a watcher and a buffer. LINGERING is
for clients that may still be sending (see lingering).
"""

import io
import os
import socket
from typing import TYPE_CHECKING, Any

from gunicorn.http.body import LengthReader

from .. import clock
from ..in_flight import Record
from . import gunicorns, lingering
from .ending import error_answer
from .head import HEAD_END, demand
from .incoming import Incoming, NeedMore, WireUnreader
from .judging import demand_limits, must_be_judged
from .proxied import ProxiedRequest as Request
from .request import ClientRequest, PlainRequest
from .running import RunningRequest, State
from .transport import Peer, Transport
from .transport.parents import ParentsSocket
from .wire import RECEIVE_BYTES, Wire

if TYPE_CHECKING:
    from .http2.connection import HTTP2Connection
    from .listener import Listener
    from .serving import Serving

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EMPTY_LINE = (b"\r", b"\r\n")
# A client that ends its side so soon after its request has nothing more to ask (`nc`, shutdown) and wants its answer.
TOGETHER_SECONDS = 0.1


class Connection(RunningRequest):
    """A client's connection. Runs on: hub, but for `finish`, which ends a request greenlet.

    `is_client_gone` says that the client has ended its side. Mostly it has left; it may also have sent all it wants to
    (`shutdown`) and wait. A client that has pipelined more requests waits, and gets all answers; one that has not ends
    that request as far as GREENROOM_CLIENT_LEFT_ENDS says, and of what goes on still gets the answer.
    """

    __slots__ = (
        "arrived",
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
        "wire",
    )

    def __init__(self, serving: "Serving", listener: "Listener", sock: Transport, peer: Peer) -> None:
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
        self.incoming = None
        self.skip_bytes = self.request_count = 0
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
                if lingering.drop(self.wire.sock):
                    self.close()
            else:
                self._look_while_busy()
            return
        if len(self.buffer) >= RECEIVE_BYTES and self.state == State.IDLE:
            return  # _parse_rest comes first
        try:
            data = self.wire.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            if self.keep(data):
                self.parse()
            elif not self.skip_bytes:
                self.serving.timeouts.forget(self)
                self._become_idle()
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
        cleartext = self.serving.cleartext
        if cleartext is not None and not self.request_count and cleartext.take_preface(self):
            return
        end = self.buffer.find(HEAD_END, self.searched_from) + len(HEAD_END)
        is_complete = end >= len(HEAD_END)
        # The first request may follow a PROXY line, which gunicorn knows how to read.
        if is_complete and not self._may_be_proxied():
            request = self.serving.parser.parse(
                self.buffer[:end], self.listener.environ, peer_is_trusted=self.is_peer_trusted
            )
            if request is not None:
                self._complete(request, self.buffer[end:])
                self._offer(request)
                return
        is_new = self.state == State.IDLE
        if (
            is_complete
            or self.is_client_gone
            or must_be_judged(
                self.buffer,
                self.searched_from,
                self.serving.parser,
                is_new=is_new,
                may_be_proxied=self._may_be_proxied(),
            )
        ):
            self._parse_as_gunicorn()
        else:
            self.wait_for_more()

    def become_http2(self) -> "HTTP2Connection":
        """Leave the socket to a connection of HTTP/2, which is to begin."""
        self.reader.stop()
        self.reader.close()
        self.state = State.CLOSED
        self.buffer = b""
        self._forget_body()
        self.serving.closed(self)
        return self.serving.serve_http2(self.listener, self.wire.sock, self.peer)

    def _may_be_proxied(self) -> bool:
        return self.serving.has_proxy_protocol and not self.request_count

    def _complete(self, request: PlainRequest, rest: bytes) -> None:
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
            unreader = WireUnreader(self.wire, rest, may_wait=True)
            self._take_body(unreader, LengthReader(unreader, request.content_length))
            environ["wsgi.input"] = self.wire.body
        else:
            self.buffer = rest
            environ["wsgi.input"] = io.BytesIO()

    def _take_body(self, unreader: WireUnreader, reader: Any) -> None:
        self.incoming = Incoming(self.wire, unreader, reader)
        self.buffer = b""

    def _parse_as_gunicorn(self) -> None:
        """Let gunicorn's parser decide: about a head that is not plain, or that is wrong already."""
        unreader = WireUnreader(self.wire, self.buffer, may_wait=False)
        try:
            demand_limits(self.buffer, self.serving.parser, may_be_proxied=self._may_be_proxied())
            request = Request(self.serving.cfg, unreader, self.peer, self.request_count + 1)
            demand(request, allows_no_host=self.serving.settings.allow_no_host)
        except NeedMore:
            self.wait_for_more()
            return
        except Exception as exc:  # every kind of refusal; gunicorn knows the status of each
            self.serving.refuse(self, exc)
            return
        self._take_proxy_protocol(request)
        unreader.may_wait = True
        self._take_body(unreader, request.body.reader)
        request.body = self.wire.body
        # gunicorn would send "100 Continue" now; it is due when the application asks for the body, and to nobody
        # who sends none, or has sent some of it without waiting (RFC 9110 10.1.1).
        if gunicorns.take_continue(request):
            if not (self._is_body_read() or unreader.buf.getbuffer().nbytes):
                self.wire.interim = CONTINUE
        cleartext, incoming = self.serving.cleartext, self.incoming
        if cleartext is not None and incoming is not None and cleartext.take_upgrade(self, request, incoming):
            return
        self._offer(request)

    def _take_proxy_protocol(self, request: ClientRequest) -> None:
        """The PROXY line comes once; all requests of the connection are told what it said."""
        if request.proxy_protocol_info:
            self.proxy_protocol_info = request.proxy_protocol_info
        else:
            request.proxy_protocol_info = self.proxy_protocol_info

    def wait_for_more(self) -> None:
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

    def _offer(self, request: ClientRequest) -> None:
        self.request_count += 1
        self.searched_from = 0
        self.state = State.WAITING
        self.arrived = clock.now()
        self.serving.timeouts.forget(self)
        self.serving.asked.add(id(self))
        self.serving.offer(self, request)

    def _look_while_busy(self) -> None:
        """Something came while a request waits or runs: the next request, or the end of the connection."""
        self.reader.stop()  # the event is level-triggered: it would come again in every turn
        if self.wire.is_tls and (self.buffer or (self.incoming is not None and self.incoming.has_more())):
            # What comes behind it waits in the kernel: a look would take a record, for each request of a pipeline one.
            self.serving.timeouts.deaf.add(self)
            return
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
        if not self.has_next_request():  # a client that sent several requests and ended its side waits for all answers
            is_together = self.serving.turn_began_at() - self.arrived < TOGETHER_SECONDS
            self.serving.client_left(self, may_wait=is_together)

    def has_client_left(self) -> bool:
        """environ["greenroom.is_client_gone"]: whether the client has hung up, as far as the loop has noticed."""
        return self.is_client_gone

    def start(self) -> None:
        self.state = State.RUNNING

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
        self.keep(self.wire.take_ahead())
        if self.is_client_gone and not self.buffer:
            # The requests that came behind this one, and before the end.
            if not self.keep(self.wire.unread()):
                self.close()
                return
        if not self.reader.active and not self.is_client_gone:
            self.reader.start(self.on_readable)
        if self.buffer:
            # The next request came with this one. After sockets were asked: a client that pipelines must not hold the
            # hub, and what run_callback runs comes in this turn.
            self.state = State.IDLE
            later = self.serving.loop.timer(0.0)
            later.start(self._parse_rest, later)
            return
        self._become_idle()
        if self.skip_bytes:
            self.state = State.READING
            self.serving.timeouts.head_started(self)

    def _become_idle(self) -> None:
        self.state = State.IDLE
        self.serving.timeouts.became_idle(self)

    def _parse_rest(self, later: Any) -> None:
        later.close()
        if self.state == State.IDLE and self.buffer:
            self.serving.timeouts.became_idle(self)  # not before: until now it could not be closed
            self.parse()

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
            self.refuse(error_answer(408, "Request Timeout", "The request did not come in time."))

    def refuse(self, page: bytes) -> None:
        """Answer what is no request, and close."""
        self.wire.try_send(page)
        self.close_gently()

    def close_gently(self) -> None:
        """Close so that a client that is still sending can read what it was answered."""
        if self.state >= State.LINGERING:
            return
        is_quiet = not self.buffer and self._is_body_read() and not (self.wire.body and self.wire.body.failed)
        may_close = self.is_client_gone or (is_quiet and self.state == State.RUNNING)
        if (may_close and not self.wire.unread(peek=True)) or not self.wire.shut_down_sending():
            self.close()
            return
        self.buffer = b""
        self._forget_body()
        lingering.begin(self)

    def close(self, *, reset: bool = False) -> None:
        if self.state == State.CLOSED:
            return
        was_lingering = self.state == State.LINGERING
        self.serving.timeouts.deaf.discard(self)
        self.state = State.CLOSED
        self.wire.close(reset=reset)
        self.buffer = b""
        self._forget_body()
        if was_lingering:
            self.serving.timeouts.forget(self)
        else:
            self.serving.closed(self)

    def begin_to_drain(self) -> None:
        """Its running request has been told to be the last."""

    def leave_to_parent(self) -> int:
        """In a forked child: the connection is the parent's. Returns its descriptor."""
        descriptor = self.wire.sock.fileno()
        self.wire.sock = ParentsSocket()  # it is to be used for nothing else
        return descriptor
