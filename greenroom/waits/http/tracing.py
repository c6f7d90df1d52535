"""Carrying a request's trace to the upstreams it asks: W3C Trace Context, as OpenTelemetry and others send it.

Where we take no part in the trace, what came is passed on as it came (https://www.w3.org/TR/trace-context/,
"forwarding"); where requests are traced (insight/traces.py), the call's own span is what the upstream continues.
An application that sends headers of its own, an instrumented one, is left alone.
"""

import re
from collections.abc import Mapping

from ... import observing
from ...in_flight import Record

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,200})?")
# List members of visible characters; it goes into a head, so nothing that could end a line.
TRACESTATE = re.compile(r"[ -~]{1,512}")


def trace_lines(record: Record, headers: Mapping[str, str]) -> str:
    """The lines for the head of a request to an upstream; "" when there is nothing to carry."""
    if observing.trace_lines is not None:
        return "" if "traceparent" in headers else observing.trace_lines()
    environ = record.environ
    if not environ:
        return ""
    parent = environ.get("HTTP_TRACEPARENT")
    if not parent or not TRACEPARENT.fullmatch(parent) or "traceparent" in headers:
        return ""
    state = environ.get("HTTP_TRACESTATE", "")
    lines = f"traceparent: {parent}\r\n"
    return lines + f"tracestate: {state}\r\n" if TRACESTATE.fullmatch(state) and "tracestate" not in headers else lines
