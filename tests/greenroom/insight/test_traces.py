"""Requests as traces: real spans of the real SDK, kept in memory."""

import logging
from collections.abc import Callable, Iterator
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from greenroom import clock, observing
from greenroom.in_flight import CURRENT, Wait
from greenroom.insight.account import STATES, Account
from greenroom.insight.otlp import open_traces
from greenroom.insight.traces import MOST_WAITS, Traces

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ENVIRON = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/orders/7",
    "HTTP_HOST": "shop.example:8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.url_scheme": "http",
}


class Stage:
    """`serve(view)` runs a view as one request; `spans` are what was exported."""

    def __init__(self, sampler: sampling.Sampler = sampling.ALWAYS_ON) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.flushed = 0
        self.traces = Traces(provider.get_tracer("test"), self._flush)

    def _flush(self) -> None:
        self.flushed += 1

    def serve(self, view: Callable[[Account], Any], code: int = 200, **headers: str) -> Account:
        def run() -> Account:
            account = Account(clock.now())
            account.environ = {**ENVIRON, **headers}
            account.id = "request-1"
            CURRENT.set(account)
            self.traces.begin(account, account.environ)
            try:
                view(account)
            except ValueError as exc:
                self.traces.failed(exc, account)
            account.route, account.code, account.ended = "/orders/<int:id>", code, clock.now()
            self.traces.finish(account)
            return account

        return copy_context().run(run)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans if span.name == name]
        return span


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    stage.traces.tells_calls = stage.traces.tells_requests = True  # whatever other tests have imported
    stage.traces.install()
    yield stage
    stage.traces.remove()


def wait(kind: Any, detail: str, seconds: float = 0.0) -> None:
    with Wait(kind, detail) as one:
        one.since -= seconds


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_request_continues_the_trace_that_came(stage: Stage) -> None:
    stage.serve(lambda account: None, HTTP_TRACEPARENT=f"00-{TRACE}-{PARENT}-01")

    span = stage.span("GET /orders/<int:id>")
    said = attributes(span)
    assert span.kind is SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    assert said["http.response.status_code"] == 200
    assert said["http.route"] == "/orders/<int:id>"
    assert said["url.path"] == "/orders/7"
    assert said["server.address"] == "shop.example"
    assert said["greenroom.request_id"] == "request-1"


def test_waits_are_children_and_queries_have_no_values(stage: Stage) -> None:
    def view(account: Account) -> None:
        wait("query", "SELECT name FROM users WHERE mail = 'eve@example.com'")
        wait("pool", "main", 0.02)
        wait("lock", "lock")  # too short to explain anything
        wait("upstream", "redis.internal:6379", 0.01)

    stage.serve(view)

    server = stage.span("GET /orders/<int:id>")
    query, pool = stage.span("SELECT"), stage.span("pool")
    assert len(stage.spans) == 4
    assert all(span.parent == server.context for span in (query, pool, stage.span("upstream")))
    assert attributes(query)["db.query.text"] == "SELECT name FROM users WHERE mail = ?"
    assert query.kind is SpanKind.CLIENT
    assert pool.start_time is not None
    assert pool.end_time is not None
    assert 0.02 <= (pool.end_time - pool.start_time) / 1e9 < 0.5
    assert attributes(pool) == {"greenroom.state": "pool", "greenroom.waits_for": "main"}
    assert attributes(stage.span("upstream"))["server.address"] == "redis.internal:6379"


def test_seconds_in_each_state_are_told(stage: Stage) -> None:
    def view(account: Account) -> None:
        account.seconds[STATES.index("query")] = 0.25

    stage.serve(view)

    assert attributes(stage.span("GET /orders/<int:id>"))["greenroom.query_seconds"] == 0.25


def test_call_is_a_child_whose_trace_the_upstream_gets(stage: Stage) -> None:
    sent: list[str] = []

    def send() -> SimpleNamespace:
        assert observing.trace_lines is not None
        sent.append(observing.trace_lines())
        wait("upstream", "api.example", 0.05)  # its own span says it
        wait("dns", "api.example", 0.01)
        return SimpleNamespace(status_code=503)

    def view(account: Account) -> None:
        request = requests.Request("GET", "http://api.example:8080/v1?token=secret").prepare()
        assert observing.on_call is not None
        observing.on_call(request, send)
        wait("sleep", "", 0.01)

    stage.serve(view)

    server, call = stage.span("GET /orders/<int:id>"), stage.span("GET")
    assert call.kind is SpanKind.CLIENT
    assert call.parent == server.context
    assert stage.span("dns").parent == call.context
    assert stage.span("sleep").parent == server.context
    assert len(stage.spans) == 4
    assert len(sent) == 1
    assert sent[0].startswith(f"traceparent: 00-{call.context.trace_id:032x}-{call.context.span_id:016x}-")
    assert sent[0].endswith("\r\n")
    said = attributes(call)
    assert said["url.full"].startswith("http://api.example:8080/v1?token=")
    assert "secret" not in said["url.full"]
    assert (said["server.address"], said["server.port"]) == ("api.example", 8080)
    assert said["http.response.status_code"] == 503
    assert call.status.status_code is StatusCode.ERROR


def test_call_that_fails_keeps_its_exception(stage: Stage) -> None:
    def send() -> None:
        raise requests.ConnectionError("refused")

    def view(account: Account) -> None:
        assert observing.on_call is not None
        with pytest.raises(requests.ConnectionError, match="refused"):
            observing.on_call(requests.Request("GET", "http://api.example/").prepare(), send)

    stage.serve(view)

    call = stage.span("GET")
    assert attributes(call)["error.type"] == "ConnectionError"
    assert call.status.status_code is StatusCode.ERROR


def test_instrumented_or_foreign_calls_are_left_alone(stage: Stage) -> None:
    """Of the application's own instrumentation, and outside of requests: the exporter's, say."""
    instrumented = requests.Request("GET", "http://api.example/", headers={"traceparent": "theirs"}).prepare()
    assert observing.on_call is not None
    stage.serve(lambda account: observing.on_call(instrumented, lambda: None))  # type: ignore[misc]
    observing.on_call(requests.Request("GET", "http://collector/").prepare(), lambda: None)

    assert [span.name for span in stage.spans] == ["GET /orders/<int:id>"]


def test_exception_and_status_make_an_error(stage: Stage) -> None:
    def view(account: Account) -> None:
        raise ValueError("no such mail: 'eve@example.com'")

    stage.serve(view, code=500)

    span = stage.span("GET /orders/<int:id>")
    assert span.status.status_code is StatusCode.ERROR
    (event,) = span.events
    said = dict(event.attributes or {})
    assert said["exception.type"] == "builtins.ValueError"
    assert "eve@" not in str(said["exception.message"])


def test_requests_that_are_not_sampled_keep_a_plain_record() -> None:
    stage = Stage(sampling.ALWAYS_OFF)

    account = stage.serve(lambda account: wait("query", "SELECT 1"))

    assert stage.spans == []
    assert type(account.waits) is dict


def test_waits_are_bounded(stage: Stage) -> None:
    def view(account: Account) -> None:
        for _ in range(MOST_WAITS + 5):
            wait("query", "SELECT 1")

    stage.serve(view)

    assert len(stage.spans) == MOST_WAITS + 1
    assert attributes(stage.span("GET /orders/<int:id>"))["greenroom.waits_left_out"] == 5


def test_spans_of_the_applications_own_instrumentation_get_the_waits(stage: Stage) -> None:
    stage.traces.tells_requests = False
    stage.traces.tells_queries = False

    def view(account: Account) -> None:
        with stage.traces.tracer.start_as_current_span("theirs"):
            wait("query", "SELECT 1")  # told by their instrumentation
            wait("lock", "lock", 0.01)

    stage.serve(view)

    assert {span.name for span in stage.spans} == {"theirs", "lock"}
    assert stage.span("lock").parent == stage.span("theirs").context


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_imported_where_nothing_is_configured(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []
    monkeypatch.setattr("importlib.import_module", imported.append)

    assert open_traces(environ) is None
    assert imported == []


def test_what_is_missing_is_said_once_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", fail)
    monkeypatch.setattr(logging.getLogger("gunicorn.error"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        assert open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) is None

    assert "pip install 'greenroom[otel]'" in caplog.text


def test_grpc_is_refused_with_what_to_set(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(logging.getLogger("gunicorn.error"), "propagate", True)
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with caplog.at_level(logging.WARNING):
        assert open_traces(environ) is None

    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in caplog.text
