"""OpenTelemetry, instrumented in code: spans of requests, kept in memory."""

from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app, excluded_urls="spans,no-such-page")


@app.get("/hello/<name>")
def hello(name):
    with trace.get_tracer(__name__).start_as_current_span("inner"):
        return {"hello": name}


@app.get("/spans")
def spans():
    return {"spans": [span.name for span in exporter.get_finished_spans()]}
