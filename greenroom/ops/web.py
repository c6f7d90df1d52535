"""The ops process's own web server: the page, its events, /metrics. Plain threads of the standard library.

    GET  /                    the page; /page.css and its scripts
    GET  /events              the view, once a second (server-sent events)
    GET  /view                the view, once
    GET  /verdict             the verdict alone: cause, level, sentence, do, since, others
    GET  /request/PID/ID      the stacks of one request in flight
    GET  /everything          all there is, for a ticket
    GET  /metrics             for Prometheus
    GET  /history?since=&until=[&route=]   the last days, Unix times; without them the last three hours
    GET  /recordings/NAME     what the flight recorder saved
    POST /recordings          save what happened lately, now
    POST /login               the token, from the form
    GET  /healthz             that this process lives; for everybody

It is the last thing to answer when all else fails, so everything in it is bounded: connections, times, lengths.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .. import clock
from .access import Access, Refusal
from .history import History
from .metrics import CONTENT_TYPE as METRICS_TYPE

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
MOST_WATCHERS = 24
SOCKET_SECONDS = 10.0
# From the connection, or the last answer on it, until a request's head is whole.
HEAD_SECONDS = 15.0
LONGEST_FORM = 4096
# A client that guesses tokens has to wait; so many at the same time, and no more are looked at.
WRONG_TOKEN_SECONDS = 1.0
REPORT_SECONDS = 60.0
KEEP_ALIVE_SECONDS = 15.0
HISTORY_SECONDS = 3 * 3600.0
LAST_UNIX_SECOND = 2.0**40
SCRIPTS = ("/drawing.js", "/flight.js", "/page.js", "/news.js", "/history.js", "/reading.js")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
}
# A recording brings its style along; nothing in it runs.
RECORDING_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"


class Board:
    """The latest view, for any number of threads that wait for the next."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._view: bytes = b"{}"
        self.metrics: bytes = b"# EOF\n"
        self.verdict: bytes = b"{}"

    def publish(self, view: bytes, metrics: bytes, verdict: bytes = b"{}") -> None:
        with self._changed:
            self._number += 1
            self._view, self.metrics, self.verdict = view, metrics, verdict
            self._changed.notify_all()

    @property
    def view(self) -> bytes:
        return self._view

    def wait(self, number: int, timeout_seconds: float) -> tuple[int, bytes]:
        """The first view after view `number`, or the newest when none comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, timeout_seconds)
            return self._number, self._view


class Part:
    """The questions of the web server; the program fills them in, tests put fakes in their place."""

    def __init__(
        self,
        board: Board,
        access: Access,
        *,
        stacks: Callable[[int, str], Any],
        everything: Callable[[], str],
        record: Callable[[], str | None],
        recording: Callable[[str], bytes | None],
        history: History,
    ) -> None:
        self.board = board
        self.access = access
        self.stacks = stacks
        self.everything = everything
        self.record = record
        self.recording = recording
        self.history = history


class Web(ThreadingHTTPServer):
    """Runs on: the main thread of the ops process, and one thread for each connection."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], part: Part) -> None:
        self.part = part
        self.watchers = threading.BoundedSemaphore(MOST_WATCHERS)
        self.guesses = threading.BoundedSemaphore(4)
        # Clients that are sending a request's head, and since when. Written by threads, each its own entry.
        self.heads: dict[Handler, float] = {}
        self.wrong_tokens = 0
        self._wrong_reported_at = 0.0
        self._connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind as http.server does, but without asking the name server for this host's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def service_actions(self) -> None:
        """Twice a second: dismiss who sends his request's head a byte at a time, which no timeout of a read ends."""
        too_old = clock.now() - HEAD_SECONDS
        for handler, since in list(self.heads.items()):
            if since < too_old:
                self.heads.pop(handler, None)
                with suppress(OSError):  # it has left
                    handler.connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the error and go on: the page serves the other clients."""
        logger.exception("a request to the ops page failed")

    def note_wrong_token(self) -> None:
        self.wrong_tokens += 1
        if clock.now() - self._wrong_reported_at > REPORT_SECONDS:
            logger.warning("wrong tokens for the ops page: %d so far", self.wrong_tokens)
            self._wrong_reported_at = clock.now()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Web
    protocol_version = "HTTP/1.1"
    timeout = SOCKET_SECONDS
    server_version = "greenroom"
    sys_version = ""

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError) as exc:
            logger.debug("a client of the ops page has left: %s", exc)
        finally:
            self.server.heads.pop(self, None)

    def handle_one_request(self) -> None:
        self.server.heads[self] = clock.now()
        super().handle_one_request()

    def parse_request(self) -> bool:
        is_whole = super().parse_request()
        self.server.heads.pop(self, None)
        return is_whole

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/healthz":
            self._text(200, "ok\n")
            return
        if path == "/page.css":  # of the form that asks for the token, too
            self._send(200, "text/css; charset=utf-8", static("page.css"))
            return
        if self._is_refused(is_page=path == "/" or path.startswith("/recordings/")):
            return
        pages: dict[str, Callable[[], None]] = {
            "/": self._page,
            "/events": self._events,
            "/view": lambda: self._send(200, "application/json", self.server.part.board.view),
            "/verdict": lambda: self._send(200, "application/json", self.server.part.board.verdict),
            "/metrics": lambda: self._send(200, METRICS_TYPE, self.server.part.board.metrics),
            "/history": self._history,
            "/everything": lambda: self._text(200, self.server.part.everything()),
        }
        if path in pages:
            pages[path]()
        elif path in SCRIPTS:
            self._send(200, "text/javascript; charset=utf-8", static(path.removeprefix("/")))
        elif path.startswith("/request/"):
            self._request(path)
        elif path.startswith("/recordings/"):
            self._recording(unquote(path.removeprefix("/recordings/")))
        else:
            self._text(404, "There is nothing here.\n")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        self.close_connection = True  # of a body that is not read nothing must be taken for the next request
        if path == "/login":
            self._login()
        elif not self._is_refused() and path == "/recordings":
            if not self.server.part.access.may_change(self.headers):
                self._text(403, "Only the page itself may ask for this.\n")
                return
            name = self.server.part.record()
            self._json(201 if name else 503, {"name": name})
        elif path != "/recordings":
            self._text(404, "There is nothing here.\n")

    def _page(self) -> None:
        self._send(200, "text/html; charset=utf-8", static("page.html"))

    def _events(self) -> None:
        if not self.server.watchers.acquire(blocking=False):
            self._text(503, "Too many watch already.\n")
            return
        try:
            self.close_connection = True
            self.send_response(200)
            self._security_headers()
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("X-Accel-Buffering", "no")
            self.end_headers()
            number = 0
            while self.command != "HEAD":
                seen, view = self.server.part.board.wait(number, KEEP_ALIVE_SECONDS)
                self.wfile.write(b"data: " + view + b"\n\n" if seen > number else b": still here\n\n")
                self.wfile.flush()
                number = seen
        finally:
            self.server.watchers.release()

    def _request(self, path: str) -> None:
        pid, _, request_id = path.removeprefix("/request/").partition("/")
        stacks = self.server.part.stacks(int(pid), unquote(request_id)) if pid.isdecimal() and request_id else None
        if stacks is None:
            self._json(504, {"error": "The worker does not answer: C code holds its GIL, or it is gone."})
        else:
            self._json(200, stacks)

    def _history(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        try:
            until = float(asked.get("until", [time.time()])[0])
            since = float(asked.get("since", [until - HISTORY_SECONDS])[0])
        except ValueError:
            self._text(400, "since and until must be Unix times in seconds.\n")
            return
        if not 0 <= since < until < LAST_UNIX_SECOND:
            self._text(400, "since must be before until, both Unix times in seconds.\n")
            return
        history = self.server.part.history
        route = asked.get("route", [""])[0]
        self._json(200, history.route(route, since, until) if route else history.read(since, until))

    def _recording(self, name: str) -> None:
        content = self.server.part.recording(name)
        if content is None:
            self._text(404, "There is no such recording.\n")
        else:
            self._send(200, "text/html; charset=utf-8", content, policy=RECORDING_POLICY)

    def _is_refused(self, *, is_page: bool = False) -> bool:
        access = self.server.part.access
        refusal = access.refusal(self.client_address[0], self.headers, self.request_version, is_page=is_page)
        if refusal is None:
            return False
        if refusal.status == 401 and self.headers.get("Authorization"):
            self._slow_down()
        if refusal.status == 401 and is_page and self.command == "GET":
            self._send(401, "text/html; charset=utf-8", static("login.html"))
        else:
            self._refuse(refusal)
        return True

    def _login(self) -> None:
        access = self.server.part.access
        refusal = access.site_refusal(self.headers, is_page=False)
        if refusal is not None:
            self._refuse(refusal)
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST_FORM:
            self._text(400, "This is not the form.\n")
            return
        form = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"))
        if not access.is_right(form.get("token", [""])[0].strip()):
            self._slow_down()
            self._send(
                401, "text/html; charset=utf-8", static("login.html").replace(b"hidden data-wrong", b"data-wrong")
            )
            return
        self.send_response(303)
        self._security_headers()
        is_secure = self.headers.get("X-Forwarded-Proto", "") == "https"
        self.send_header("Set-Cookie", access.cookie(is_secure=is_secure))
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _slow_down(self) -> None:
        self.server.note_wrong_token()
        with self.server.guesses:
            time.sleep(WRONG_TOKEN_SECONDS)

    def _refuse(self, refusal: Refusal) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
        self._send(refusal.status, "text/plain; charset=utf-8", (refusal.reason + "\n").encode(), headers)

    def _text(self, status: int, words: str) -> None:
        self._send(status, "text/plain; charset=utf-8", words.encode("utf-8", "replace"))

    def _json(self, status: int, value: Any) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(
        self,
        status: int,
        content_type: str,
        content: bytes,
        headers: Mapping[str, str] | None = None,
        policy: str | None = None,
    ) -> None:
        self.send_response(status)
        self._security_headers(policy)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _security_headers(self, policy: str | None = None) -> None:
        if self.close_connection:  # said, or the client asks again on it and finds it gone
            self.send_header("Connection", "close")
        for name, value in SECURITY_HEADERS.items():
            self.send_header(name, policy if policy and name == "Content-Security-Policy" else value)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a look at the page is no event, and errors are logged where they happen."""
        logger.debug(format, *args)


def static(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()
