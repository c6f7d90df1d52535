"""A client of HTTP/2 over the harness's cleartext connections, which shows every frame it gets."""

import ssl
from collections.abc import Callable
from typing import Any

import gevent
import h2.config
import h2.connection
import h2.events
import h2.settings

from ..harness import LONG_WAIT_SECONDS, Client, Site

CLEARTEXT = {"http_protocols": "h2,h1", "http2_cleartext": "both"}


class HTTP2Client:
    """`events` is all that came; `is_open` until the server closes."""

    def __init__(self, site: Site, *, window: int = 65_535, context: ssl.SSLContext | None = None) -> None:
        self.sock = site.connect().sock
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.events: list[h2.events.Event] = []
        self.is_open = True
        self.acknowledges = True
        self.h2.initiate_connection()
        self.flush()

    @classmethod
    def over(cls, plain: Client) -> "HTTP2Client":
        """A connection that has been upgraded; its first stream has been asked."""
        made = cls.__new__(cls)
        made.sock, made.events, made.is_open, made.acknowledges = plain.sock, [], True, True
        made.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        made.h2.initiate_upgrade_connection()
        made.flush()
        made.take(plain.buffer)
        return made

    def __enter__(self) -> "HTTP2Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        self.send(self.h2.data_to_send())

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            self.is_open = False

    def ask(
        self,
        path: str = "/",
        method: str = "GET",
        *,
        ends: bool = True,
        scheme: str = "http",
        headers: list[tuple[str, str]] | None = None,
    ) -> int:
        stream = int(self.h2.get_next_available_stream_id())
        head = [(":method", method), (":path", path), (":scheme", scheme), (":authority", "x"), *(headers or [])]
        self.h2.send_headers(stream, head, end_stream=ends)
        self.flush()
        return stream

    def upload(self, stream: int, data: bytes, *, ends: bool = True) -> None:
        self.h2.send_data(stream, data, end_stream=ends)
        self.flush()

    def turn(self) -> None:
        """Take what comes next."""
        try:
            data = self.sock.recv(65_536)
        except OSError:
            data = b""
        if data:
            self.take(data)
        else:
            self.is_open = False

    def take(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived) and self.acknowledges:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        with gevent.Timeout(LONG_WAIT_SECONDS, AssertionError(f"waited in vain: {what}; {self.events}")):
            while not condition():
                assert self.is_open, f"the server closed: {self.events}"
                self.turn()

    def all_of(self, kind: type, stream: int | None = None) -> list[Any]:
        return [
            event
            for event in self.events
            if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None))
        ]

    def has_ended(self, stream: int) -> bool:
        return bool(self.all_of(h2.events.StreamEnded, stream))

    def finish(self, *streams: int) -> None:
        self.until(lambda: all(map(self.has_ended, streams)), f"streams {streams} end")

    def until_closed(self) -> None:
        with gevent.Timeout(LONG_WAIT_SECONDS, AssertionError("the server does not close")):
            while self.is_open:
                self.turn()

    def head(self, stream: int) -> dict[str, str]:
        (event,) = self.all_of(h2.events.ResponseReceived, stream)
        return dict(event.headers)

    def body(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.all_of(h2.events.DataReceived, stream))

    def error_code(self) -> int | None:
        """Of the GOAWAY that ended the connection."""
        ended = self.all_of(h2.events.ConnectionTerminated)
        return int(ended[-1].error_code) if ended else None
