"""Traces over OTLP/HTTP, from a real worker to a collector that reads what comes."""

import threading
import time
from collections.abc import Callable, Iterator
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.database import psycopg2_url

from .conftest import Server, wait_until
from .staging import TROUBLE, slow_upstream


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "CollectorServer"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.services |= {one.value.string_value for one in resource.resource.attributes}
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class CollectorServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Collector)
        self.spans: list[Any] = []
        self.services: set[str] = set()

    def of(self, trace_id: str) -> dict[str, Any]:
        return {span.name: span for span in self.spans if span.trace_id.hex() == trace_id}


@pytest.fixture
def collector() -> Iterator[CollectorServer]:
    server = CollectorServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


def traceparent(number: int) -> str:
    return f"00-{number:032x}-{number:016x}-01"


def test_request_with_its_query_and_its_call(
    start: Callable[..., Server], collector: CollectorServer, postgres_url: str
) -> None:
    with slow_upstream() as upstream:
        server = start(
            {
                **TROUBLE,
                "WEB_CONCURRENCY": "1",
                "UPSTREAM_URL": upstream,
                "TROUBLE_DATABASE_URL": psycopg2_url(postgres_url).render_as_string(hide_password=False),
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
                "OTEL_BSP_SCHEDULE_DELAY": "100",
                "OTEL_SERVICE_NAME": "shop",
            }
        ).wait_ready("/")
        with requests.Session() as session:  # one connection: each request has a trace of its own all the same
            for number in (1, 2):
                session.get(f"{server.url}/held/30", headers={"traceparent": traceparent(number)}, timeout=60)
            session.get(f"{server.url}/fail", headers={"traceparent": traceparent(3)}, timeout=60)
        wait_until(lambda: all(collector.of(f"{number:032x}") for number in (1, 2, 3)), "the traces come")
        heard = requests.get(f"{upstream}/traces", timeout=10).json()

        for number in (1, 2):
            spans = collector.of(f"{number:032x}")
            top, query, call = spans["GET /held/<int:ms>"], spans["SELECT"], spans["GET"]
            assert int.from_bytes(top.parent_span_id) == number
            assert query.parent_span_id == call.parent_span_id == top.span_id
            assert top.start_time_unix_nano <= call.start_time_unix_nano < call.end_time_unix_nano
            assert call.end_time_unix_nano <= top.end_time_unix_nano
            assert abs(top.end_time_unix_nano / 1e9 - time.time()) < 300
            assert f"00-{number:032x}-{call.span_id.hex()}-01" in heard
        assert len(heard) == 2
        failed = collector.of(f"{3:032x}")["GET /fail"]
        assert failed.status.code == 2
        assert failed.events[0].name == "exception"
        assert "shop" in collector.services

        # What is not sent yet when the server stops is sent then.
        requests.get(f"{server.url}/", headers={"traceparent": traceparent(4)}, timeout=60)
        server.stop()
        assert "GET /" in collector.of(f"{4:032x}")
