"""The way of traces out of a worker: to OTEL_EXPORTER_OTLP_ENDPOINT, if it is set and OpenTelemetry's SDK installed.

Configured as everywhere, by OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and so on, which the SDK reads itself. A provider
that the application has set is used; ours is given to nobody else. Nothing of OpenTelemetry is imported where no
address is set.
"""

import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .traces import Traces

logger = logging.getLogger("gunicorn.error")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
INSTALL = "pip install 'greenroom[otel]' (opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http)"
# Spans are written as protobuf in the loop's thread: so many take some milliseconds, the SDK's 512 eight times as long.
BATCH_SPANS = 64
FLUSH_SECONDS = 2.0


def open_traces(environ: Mapping[str, str] = os.environ) -> Traces | None:
    """Return the traces of this worker; None if they are not configured, or (with a line in the log) can't be had.

    Runs on: worker start-up, after the application has been imported.
    """
    if not any(environ.get(name, "").strip() for name in ENDPOINTS):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if "otlp" not in environ.get("OTEL_TRACES_EXPORTER", "otlp"):
        return None
    try:
        trace: Any = importlib.import_module("opentelemetry.trace")
        sdk: Any = importlib.import_module("opentelemetry.sdk.trace")
    except ImportError as exc:
        logger.warning("no traces though %s is set: %s; %s", ENDPOINTS[1], exc, INSTALL)
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, sdk.TracerProvider):
        return Traces(provider.get_tracer("greenroom"), lambda: _flush(provider.force_flush))
    return _own(sdk, environ)


def _own(sdk: Any, environ: Mapping[str, str]) -> Traces | None:
    """Return traces through a provider of ours that is not the global one: the application may set its own."""
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), "http/protobuf")
    if not protocol.startswith("http"):
        logger.warning(
            "no traces: OTLP over %s is not spoken here; set %s=http/protobuf and the collector's port for HTTP (4318)",
            protocol,
            PROTOCOLS[1],
        )
        return None
    try:
        exporter = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter()
        export: Any = importlib.import_module("opentelemetry.sdk.trace.export")
        resources: Any = importlib.import_module("opentelemetry.sdk.resources")
    except Exception as exc:  # a certificate that is not there, say: requests are served all the same
        logger.warning("no traces though %s is set: %s; %s", ENDPOINTS[1], exc, INSTALL)
        return None
    size = None if environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") else BATCH_SPANS
    name = environ.get("OTEL_SERVICE_NAME") or environ.get("WSGI_APP") or "greenroom"
    resource = resources.Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(resources.Resource({"service.name": name}))
    provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(export.BatchSpanProcessor(exporter, max_export_batch_size=size))
    return Traces(provider.get_tracer("greenroom"), lambda: _flush(provider.shutdown))


def _flush(send: Callable[[], object]) -> None:
    """Send what is left, as long as it is worth waiting for. Runs on: the main greenlet, at the worker's end."""
    thread = threading.Thread(target=send, daemon=True, name="greenroom-last-spans")
    thread.start()
    thread.join(FLUSH_SECONDS)
