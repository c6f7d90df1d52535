"""Flask routes with large bodies: 1 MB comes, 1 MB goes, and a stream of events."""

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

from . import bodies

app = Flask(__name__)


@app.get("/")
def ready() -> dict[str, Any]:
    return {}


@app.post("/upload")
def upload() -> dict[str, Any]:
    return {"bytes": len(request.get_data(cache=False))}


@app.get("/large")
def large() -> Response:
    return Response(bodies.LARGE, mimetype="application/octet-stream")


@app.get("/events")
def events() -> Response:
    def stream() -> Iterator[bytes]:
        for number in range(bodies.EVENTS):
            yield bodies.event(number)

    return Response(stream(), mimetype="text/event-stream")
