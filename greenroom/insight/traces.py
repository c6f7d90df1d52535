"""Traces of requests for OpenTelemetry: a request's states as spans, calls and queries as children.

    server span     one for each request, child of the `traceparent` that came; seconds in each state as attributes
      wait span     each wait that has a name: a query, a lock, a pool, a name server, a child process, ...
      client span   each call of `requests`, with the status; the upstream gets its `traceparent`

Where OpenTelemetry's own instrumentation of Flask, of `requests` or of the database is at work, its spans are left to
it, and ours are their children. Their way out is in otlp.py.

Waits are heard of by the dict that a request keeps them in: a request that is not traced has a plain one.
"""

import importlib
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import clock, observing, redaction
from ..in_flight import CURRENT, Wait
from .account import OTHER_ROUTE, STATES, Account
from .failures import message_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger("gunicorn.error")

# Of one request; what is beyond is counted.
MOST_WAITS = 256
# A shorter wait explains nothing. Queries are told however quick.
SHORTEST_SECONDS = 0.001
WHOLE = ("query",)
SERVERS = ("flask", "wsgi", "django")
CALLS = ("requests", "urllib3")
END_OF_HOST = re.compile("[/?#]")
DATABASES = ("psycopg2", "sqlalchemy", "dbapi", "aiopg")


class Waits(dict[Wait, None]):
    """The waits of a request that is traced; each that ends becomes a span."""

    __slots__ = ("began", "began_ns", "count", "left_out", "span", "traces")

    def __init__(self, traces: "Traces", span: "Span | None", began: float, began_ns: int) -> None:
        super().__init__()
        self.traces = traces
        self.span = span
        self.began = began
        self.began_ns = began_ns
        self.count = self.left_out = 0

    def at(self, moment: float) -> int:
        """Nanoseconds of the wall clock, by the monotonic one: a clock that jumps bends no span."""
        return self.began_ns + int((moment - self.began) * 1e9)

    def pop(self, wait: Wait, default: None = None) -> None:  # type: ignore[override]
        """Runs on: whoever waited, when it is over; any thread."""
        super().pop(wait, default)
        try:
            self.traces.waited(self, wait)
        except Exception:
            logger.exception("a wait could not be traced")


class Traces:
    """Of one worker. `flush` sends what has not been sent."""

    def __init__(self, tracer: "Tracer", flush: Callable[[], None]) -> None:
        api: Any = importlib.import_module("opentelemetry.trace")
        self.api = api
        self.context: Any = importlib.import_module("opentelemetry.context")
        self.propagate: Any = importlib.import_module("opentelemetry.propagate")
        self.tracer = tracer
        self.flush = flush
        self.is_calling = self.context.create_key("greenroom-call")
        self.tells_requests = not _are_loaded(SERVERS)
        self.tells_calls = not _are_loaded(CALLS)
        self.tells_queries = not _are_loaded(DATABASES)

    def install(self) -> None:
        """Be told of calls. Runs on: worker start-up."""
        if self.tells_calls:
            observing.on_call = self.call
            observing.trace_lines = self.lines

    def remove(self) -> None:
        """Runs on: the main greenlet, when the last request is over."""
        if observing.on_call == self.call:
            observing.on_call = observing.trace_lines = None
        self.flush()

    # Requests

    def begin(self, account: Account, environ: Mapping[str, Any]) -> None:
        """Its head is read. Runs on: request greenlet, whose context is the request's own."""
        now_ns, now = time.time_ns(), clock.now()
        began_ns = now_ns - int((now - account.began) * 1e9)
        span = None
        if self.tells_requests:
            headers = {
                name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"
            }
            parent = self.propagate.extract(headers)
            span = self.tracer.start_span(
                str(environ.get("REQUEST_METHOD", "HTTP")),
                context=parent,
                kind=self.api.SpanKind.SERVER,
                attributes=_of_request(environ),
                start_time=began_ns,
            )
            self.context.attach(self.api.set_span_in_context(span, parent))
            if not span.is_recording():
                return
        account.waits = Waits(self, span, account.began, began_ns)

    def finish(self, account: Account) -> None:
        """Runs on: request greenlet, when its answer is sent and counted."""
        waits = account.waits
        if type(waits) is not Waits or waits.span is None:
            return
        span = waits.span
        route = account.pattern()
        attributes: dict[str, Any] = {"greenroom.request_id": account.id}
        if account.code:
            attributes["http.response.status_code"] = account.code
        for state, seconds in zip(STATES, account.seconds, strict=True):
            if seconds:
                attributes[f"greenroom.{state}_seconds"] = round(seconds, 6)
        if account.is_cut:
            attributes["greenroom.cut"] = account.cut_reason
        if waits.left_out:
            attributes["greenroom.waits_left_out"] = waits.left_out
        if route != OTHER_ROUTE:
            attributes["http.route"] = route
            method = account.environ.get("REQUEST_METHOD", "HTTP") if account.environ else "HTTP"
            span.update_name(f"{method} {route}")
        span.set_attributes(attributes)
        if account.code >= 500:
            span.set_status(self.api.StatusCode.ERROR)
        span.end(waits.at(account.ended))

    def failed(self, exc: BaseException, account: Any) -> None:
        """An exception ended it: its class and its redacted message. Runs on: request greenlet."""
        waits = getattr(account, "waits", None)
        if type(waits) is Waits and waits.span is not None:
            kind = type(exc)
            name = f"{kind.__module__}.{kind.__qualname__}"
            waits.span.add_event("exception", {"exception.type": name, "exception.message": message_of(exc)})

    # Waits

    def waited(self, waits: Waits, wait: Wait) -> None:
        ended = clock.now()
        is_query = wait.kind in WHOLE
        if (is_query and not self.tells_queries) or (not is_query and ended - wait.since < SHORTEST_SECONDS):
            return
        context = self.context.get_current()
        if wait.kind == "upstream" and (self.context.get_value(self.is_calling, context) or not self.tells_calls):
            return  # the call's own span says it
        if not self.api.get_current_span(context).is_recording():
            return
        if waits.count >= MOST_WAITS:
            waits.left_out += 1
            return
        waits.count += 1
        detail = redaction.detail(wait.kind, wait.detail)
        name: str = wait.kind
        attributes = {"greenroom.state": wait.kind, "greenroom.waits_for": detail}
        is_client = is_query or wait.kind == "upstream"
        if is_query:
            name = detail.partition(" ")[0].upper() or "query"
            attributes.update({"db.system.name": "postgresql", "db.query.text": detail})
        elif wait.kind == "upstream":
            attributes["server.address"] = detail
        kind = self.api.SpanKind.CLIENT if is_client else self.api.SpanKind.INTERNAL
        self.tracer.start_span(
            name, context=context, kind=kind, attributes=attributes, start_time=waits.at(wait.since)
        ).end(waits.at(ended))

    # Calls of `requests`

    def call(self, request: Any, send: Callable[[], Any]) -> Any:
        """Send with a span round it. Runs on: any greenlet or thread."""
        if CURRENT.get() is None or "traceparent" in (request.headers or ()):
            return send()
        method, url = str(request.method), str(request.url)
        span = self.tracer.start_span(
            method,
            kind=self.api.SpanKind.CLIENT,
            attributes={"http.request.method": method, **_of_url(url)},
        )
        context = self.context.set_value(self.is_calling, True, self.api.set_span_in_context(span))
        token = self.context.attach(context)
        try:
            response = send()
        except BaseException as exc:
            span.set_attribute("error.type", type(exc).__name__)
            span.set_status(self.api.StatusCode.ERROR, message_of(exc))
            raise
        else:
            status = getattr(response, "status_code", 0)
            span.set_attribute("http.response.status_code", status)
            if status >= 400:
                span.set_status(self.api.StatusCode.ERROR)
            return response
        finally:
            self.context.detach(token)
            span.end()

    def lines(self) -> str:
        """The lines for the head of a request to an upstream, of the call that is under way."""
        fields: dict[str, str] = {}
        self.propagate.inject(fields)
        return "".join(f"{name}: {value}\r\n" for name, value in fields.items() if f"{name}{value}".isprintable())


def _are_loaded(names: tuple[str, ...]) -> bool:
    return any(f"opentelemetry.instrumentation.{name}" in sys.modules for name in names)


def _of_request(environ: Mapping[str, Any]) -> dict[str, Any]:
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    said = {
        "http.request.method": environ.get("REQUEST_METHOD", ""),
        "url.scheme": environ.get("wsgi.url_scheme", ""),
        "url.path": redaction.path(path),
        "server.address": str(environ.get("HTTP_HOST", "")).partition(":")[0],
        "client.address": environ.get("REMOTE_ADDR", ""),
        "user_agent.original": redaction.line(environ.get("HTTP_USER_AGENT", "")),
        "network.protocol.version": str(environ.get("SERVER_PROTOCOL", "")).partition("/")[2],
    }
    return {name: value for name, value in said.items() if value}


def _of_url(url: str) -> dict[str, Any]:
    """Where it leads; without the login that may be in it, and of its query only the names."""
    scheme, _, rest = url.partition("://")
    end = END_OF_HOST.search(rest)
    before = rest[: end.start()] if end else rest
    host, target = before.rpartition("@")[2], rest[len(before) :]
    name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    said: dict[str, Any] = {
        "url.full": f"{scheme}://{host}{redaction.target(target)}",
        "server.address": name or host,
    }
    if name and port.isdigit():
        said["server.port"] = int(port)
    return said
