"""An application with the helpers that libraries start: what they hold at the end must come out."""

import atexit
import logging
import logging.handlers
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import requests
import sentry_sdk
from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask
from flask_socketio import SocketIO
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.transport import Transport

app = Flask(__name__)
socketio = SocketIO(app, async_mode=os.environ.get("ASYNC_MODE", "threading"))


def tell(what: str) -> None:
    """Over the network, as exporters do."""
    requests.get(f"{os.environ['SINK']}/{what}", timeout=10)


class Exporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            tell(f"span-{span.name}")
        return SpanExportResult.SUCCESS


class Envelopes(Transport):
    """As Sentry's own: a queue, and a thread that sends; flushed at exit."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        from sentry_sdk.worker import BackgroundWorker

        self.worker = BackgroundWorker()

    def capture_envelope(self, envelope: Any) -> None:
        event = envelope.get_event()
        if event is not None:
            self.worker.submit(lambda: (time.sleep(0.3), tell(f"event-{event['message']}")))

    def flush(self, timeout: float, callback: Any = None) -> None:
        self.worker.flush(timeout, callback)

    def kill(self) -> None:
        self.worker.kill()


class Sending(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell(f"line-{record.getMessage()}")


sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=Envelopes, default_integrations=True)
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Exporter(), schedule_delay_millis=3_600_000))
tracer = provider.get_tracer("test")
lines: queue.Queue[Any] = queue.Queue()
listener = logging.handlers.QueueListener(lines, Sending())
listener.start()
atexit.register(listener.stop)
log = logging.getLogger("queued")
log.addHandler(logging.handlers.QueueHandler(lines))
log.propagate = False
scheduler = BackgroundScheduler(daemon=True)
scheduler.add_job(lambda: None, "interval", hours=1)
scheduler.start()
calls = ThreadPoolExecutor(1)
processes = ProcessPoolExecutor(2)
if "CONSUMER_SECONDS" in os.environ:
    threading.Thread(target=time.sleep, args=(float(os.environ["CONSUMER_SECONDS"]),), name="my-consumer").start()


@app.get("/readyz")
def ready() -> str:
    return "ok"


def for_ever() -> None:
    while True:
        socketio.sleep(0.1)


@app.get("/work")
def work() -> str:
    """Each helper gets something to do, and is not waited for."""
    socketio.start_background_task(for_ever)
    threading.Thread(target=for_ever).start()
    with tracer.start_as_current_span("one"):
        pass
    log.warning("one")
    sentry_sdk.capture_message("one")
    for number in range(3):
        calls.submit(lambda number=number: (time.sleep(0.2), tell(f"call-{number}")))
    return "ok"


@app.get("/process")
def process() -> str:
    return str(processes.submit(pow, 2, 5).result(timeout=30))


@app.get("/hang")
def hang() -> str:
    """A call of an executor that never ends: Python would wait for it for ever."""
    calls.submit(time.sleep, 3600)
    return "ok"
