"""An application with nothing in it of the agent that is started in front of it; one view says what that does."""

import sys

from flask import Flask

app = Flask(__name__)


def is_traced():
    """Whether an agent knows of this request."""
    if "newrelic" in sys.modules:
        from newrelic.agent import current_transaction

        return current_transaction() is not None
    if "ddtrace" in sys.modules:
        from ddtrace.trace import tracer

        return tracer.current_span() is not None
    from opentelemetry import trace

    return trace.get_current_span().get_span_context().is_valid


@app.get("/hello/<name>")
def hello(name):
    return {"hello": name, "traced": is_traced()}


@app.get("/wrong")
def wrong():
    raise LookupError("asked for it")
