"""An application that shows what one request leaves behind for the next, fails in every way, and moves large bodies."""

import contextvars
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import gevent
from flask import (
    Flask,
    Response,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
    send_file,
    stream_with_context,
)

app = Flask(__name__)
user = contextvars.ContextVar("user", default="nobody")
local = threading.local()
had_context_before = contextvars.ContextVar("had_context_before", default=False)
teardowns = {"count": 0}
sessions = {"out": 0}
gone: list[str] = []
EXCEPTIONS = (SystemExit, gevent.GreenletExit, KeyboardInterrupt, gevent.Timeout, ValueError)
ERRORS = {error.__name__: error for error in EXCEPTIONS}

LARGE = tempfile.NamedTemporaryFile(prefix="greenroom-wire-")
LARGE.truncate(300_000_000)  # a hole: it costs no disk


@app.teardown_request
def count_teardown(exc: BaseException | None) -> None:
    teardowns["count"] += 1


@app.get("/readyz")
def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/who/<name>")
def who(name: str) -> dict[str, str]:
    """Return the earlier visitors, as far as this request can see them."""
    before = {"context": user.get(), "thread": getattr(local, "user", "nobody")}
    user.set(name)
    local.user = name
    return before


@app.get("/raise/<name>")
def fail(name: str) -> str:
    raise ERRORS[name]()


@app.get("/raise-late/<name>")
def fail_late(name: str) -> Response:
    def parts() -> Iterator[bytes]:
        yield b"first"
        raise ERRORS[name]()

    return Response(parts())


@app.teardown_appcontext
def give_back(exc: BaseException | None) -> None:
    if g.pop("has_session", False):
        sessions["out"] -= 1


@app.get("/stream/<how>")
def stream(how: str) -> Response:
    """A body that is made while the request's context lasts, and a session with it."""

    def parts() -> Iterator[bytes]:
        yield request.path.encode()
        if how == "raises":
            raise ValueError("in the midst of the body")
        while how == "lasts":
            yield b"." * 100_000

    g.has_session = True
    sessions["out"] += 1
    return Response(stream_with_context(parts()))


@app.get("/sessions")
def count_sessions() -> dict[str, Any]:
    return {**sessions, "is_context_left": had_context_before.get()}


def note_context(application: Any) -> Any:
    """Middleware: whether Flask still has a context when a request comes, which is another request's then."""

    def run(environ: dict[str, Any], start_response: Any) -> Any:
        had_context_before.set(has_request_context() or has_app_context())
        return application(environ, start_response)

    return run


app.wsgi_app = note_context(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/teardowns")
def count() -> dict[str, int]:
    return teardowns


@app.post("/upload")
def upload() -> dict[str, int]:
    size = 0
    while data := request.stream.read(65_536):
        size += len(data)
    return {"size": size}


@app.get("/large")
def large() -> Response:
    return send_file(LARGE.name, mimetype="application/octet-stream")


@app.route("/slow/<name>", methods=["GET", "POST"])
def slow(name: str) -> dict[str, bool]:
    """Runs until its client has left, or for 20 s."""
    is_gone = request.environ.get("greenroom.is_client_gone", lambda: False)
    until = time.monotonic() + 20
    while not is_gone() and time.monotonic() < until:
        time.sleep(0.02)
    if is_gone():
        gone.append(name)
    return {"gone": is_gone()}


@app.get("/gone")
def who_left() -> list[str]:
    return gone


@app.get("/environ")
def environ() -> dict[str, Any]:
    return {key: value for key, value in request.environ.items() if isinstance(value, str)} | {
        "debug": current_app.debug,
        "pid": os.getpid(),
    }
