"""One client's connection: a state machine that the hub runs.

    IDLE ──first byte──> READING a head ──complete──> WAITING for admission ──> RUNNING ──answered──> IDLE
      │                        │                                                   │
      └──── the client left, or its time is up, or what it sent is refused ────────┴──> CLOSED

Only RUNNING has a greenlet, a fresh one with a fresh contextvars.Context and fresh thread-locals for each request, so
nothing survives into the next request on the connection. Everything before costs a watcher and a buffer.
"""

import enum
import io
import socket
from typing import TYPE_CHECKING, Any

from gunicorn.http.body import Body, LengthReader
from gunicorn.http.message import Request

from .head import HEAD_END, has_bare_line_feed
from .request import PlainRequest
from .wire import RECEIVE_BYTES, NeedMore, Wire, WireUnreader

if TYPE_CHECKING:
    from .listener import Listener
    from .serving import Serving

# What the application left unread of a body is read and thrown away up to this size, to keep the connection.
DISCARD_BYTES = 65_536


class State(enum.IntEnum):
    IDLE = 0
    READING = 1
    WAITING = 2
    RUNNING = 3
    CLOSED = 4


class Connection:
    """A client's connection. Runs on: hub, but for `finish`, which ends a request greenlet."""

    __slots__ = (
        "buffer",
        "is_client_gone",
        "is_peer_trusted",
        "listener",
        "peer",
        "proxy_protocol_info",
        "reader",
        "request_count",
        "serving",
        "state",
        "unreader",
        "wire",
    )

    def __init__(self, serving: "Serving", listener: "Listener", sock: socket.socket, peer: Any) -> None:
        self.serving = serving
        self.listener = listener
        self.peer = peer
        self.is_peer_trusted = serving.trusts(peer)
        self.reader = serving.loop.io(sock.fileno(), 1)
        self.wire = Wire(
            sock,
            self.reader,
            body_timeout_seconds=serving.settings.body_timeout_seconds,
            send_timeout_seconds=serving.settings.send_timeout_seconds,
        )
        self.buffer = b""
        self.unreader: WireUnreader | None = None  # the body's, while a request has one
        self.request_count = 0
        self.proxy_protocol_info: dict[str, Any] | None = None
        self.state = State.IDLE
        self.is_client_gone = False
        self.reader.start(self.on_readable)

    def on_readable(self) -> None:
        """Bytes have come, or the client has left."""
        if self.state > State.READING:
            self._look_while_busy()
            return
        try:
            data = self.wire.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        self.buffer = self.buffer + data if self.buffer else data
        self.parse()

    def parse(self) -> None:
        """Offer the request in the buffer if its head is complete; else wait for more of it, or refuse it."""
        end = self.buffer.find(HEAD_END) + len(HEAD_END)
        is_complete = end >= len(HEAD_END)
        # The first request may follow a PROXY line, which gunicorn knows how to read.
        if is_complete and self.listener.is_plain and (self.request_count or not self.serving.has_proxy_protocol):
            head = self.serving.parser.parse(
                self.buffer[:end], self.listener.environ, peer_is_trusted=self.is_peer_trusted
            )
            if head is not None:
                rest = self.buffer[end:]
                self._prepare_body(head.environ, head.content_length, rest)
                self._offer(PlainRequest(head.environ, is_kept_alive=head.is_kept_alive))
                return
        if is_complete or self._must_be_judged():
            self._parse_as_gunicorn()
        else:
            self._wait_for_more()

    def _prepare_body(self, environ: dict[str, Any], content_length: int, rest: bytes) -> None:
        if isinstance(self.peer, tuple):
            environ["REMOTE_ADDR"] = self.peer[0]
            environ["REMOTE_PORT"] = str(self.peer[1])
        if self.proxy_protocol_info:
            environ.update(self.serving.proxy_environ(self.proxy_protocol_info))
        if content_length:
            self.unreader = WireUnreader(self.wire, rest, may_wait=True)
            self.buffer = b""
            environ["wsgi.input"] = Body(LengthReader(self.unreader, content_length))
        else:
            self.buffer = rest
            environ["wsgi.input"] = io.BytesIO()

    def _parse_as_gunicorn(self) -> None:
        """Let gunicorn's parser decide: about a head that is not plain, or that is wrong already."""
        unreader = WireUnreader(self.wire, self.buffer, may_wait=False)
        try:
            request = Request(self.serving.cfg, unreader, self.peer, self.request_count + 1)
        except NeedMore:
            self._wait_for_more()
            return
        except StopIteration:
            self.close()
            return
        except Exception as exc:  # every kind of refusal; gunicorn knows the status of each
            self.serving.refuse(self, exc)
            return
        if request.proxy_protocol_info:
            self.proxy_protocol_info = request.proxy_protocol_info
        else:
            request.proxy_protocol_info = self.proxy_protocol_info
        unreader.may_wait = True
        self.unreader = unreader
        self.buffer = b""
        self._offer(request)

    def _must_be_judged(self) -> bool:
        """Whether an incomplete head can be wrong already: too long, or with lines that end without CR."""
        if self.serving.has_proxy_protocol and not self.request_count:
            return True
        return len(self.buffer) > self.serving.parser.plain_bytes or has_bare_line_feed(self.buffer)

    def _wait_for_more(self) -> None:
        if self.state != State.READING:
            self.state = State.READING
            self.serving.timeouts.head_started(self)

    def _offer(self, request: Any) -> None:
        self.request_count += 1
        self.state = State.WAITING
        self.serving.offer(self, request)

    def _look_while_busy(self) -> None:
        """Something came while a request waits or runs: the next request, or the end of the connection."""
        self.reader.stop()  # the event is level-triggered: it would come again in every turn
        try:
            self.is_client_gone = self.wire.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            self.reader.start(self.on_readable)
            return
        except OSError:
            self.is_client_gone = True
        if self.is_client_gone:
            self.serving.client_left(self)

    def finish(self, *, is_kept: bool) -> None:
        """The request has been answered: keep the connection for the next one, or close it.

        Runs on: request greenlet, at its very end; may switch while it discards the rest of a body.
        """
        if not is_kept or self.is_client_gone or not self._is_body_discarded():
            self.close()
            return
        self.state = State.IDLE
        if not self.reader.active:  # type: ignore[attr-defined]  # the stubs miss it
            self.reader.start(self.on_readable)
        self.serving.timeouts.became_idle(self)
        if self.buffer:
            # The next request came with this one. In a later turn: a client that pipelines must not hold the hub.
            self.serving.loop.run_callback(self._parse_rest)

    def _parse_rest(self) -> None:
        if self.state == State.IDLE and self.buffer:
            self.parse()

    def _is_body_discarded(self) -> bool:
        """Whether all of the request's body has been read, by the application or now by us."""
        unreader, self.unreader = self.unreader, None
        if unreader is None:
            return True
        body = self.serving.body_of(self)
        if body.failed or unreader.interim:  # lost in the body, or the client still waits for its "100 Continue"
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
        return True

    def close(self, *, reset: bool = False) -> None:
        if self.state == State.CLOSED:
            return
        self.state = State.CLOSED
        self.wire.close(reset=reset)
        self.buffer = b""
        self.serving.closed(self)
