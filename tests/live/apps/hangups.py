"""A Flask application with Sentry, whose views wait in many ways and whose errors are reported to a file."""

import logging
import os
import queue
import subprocess
import threading
import time
from typing import Any

import requests
import sentry_sdk
from flask import Flask, got_request_exception, request
from sentry_sdk.transport import Transport

REPORTS = os.environ["REPORTS"]


def report(line: str) -> None:
    with open(REPORTS, "a") as file:
        file.write(line + "\n")


class ToFile(Transport):
    """Events that Sentry would be sent."""

    def capture_envelope(self, envelope: Any) -> None:
        event = envelope.get_event()
        if event is not None:
            values = (event.get("exception") or {}).get("values") or [{}]
            report(f"sentry: {values[-1].get('type')}")


sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=ToFile)
app = Flask(__name__)
lock = threading.Lock()
lock.acquire()
condition = threading.Condition()


@got_request_exception.connect_via(app)
def reporter(sender: Any, exception: Exception, **_: Any) -> None:
    """As other reporters do it."""
    report(f"signal: {type(exception).__name__}")


@app.errorhandler(500)
def server_error(error: Any) -> tuple[str, int]:
    report("handler of 500")
    return "sorry", 500


@app.get("/readyz")
def ready() -> str:
    return "ok"


class Failed(Exception):
    """The application's own word for it."""


class PoolTimeout(RuntimeError):
    """A library's own, as psycopg_pool's is."""


def wait(kind: str) -> Any:
    if kind == "sleep":
        time.sleep(60)
    elif kind == "lock":
        lock.acquire()
    elif kind == "queue":
        queue.Queue().get(timeout=60)
    elif kind == "pool":
        with condition:
            if not condition.wait(timeout=60):
                raise PoolTimeout("couldn't get a connection after 60 s")
    elif kind == "process":
        subprocess.run(["sleep", "60"], timeout=60)
    elif kind == "upstream":
        requests.get(os.environ["UPSTREAM"], timeout=60)
    elif kind == "translated":
        try:
            time.sleep(60)
        except TimeoutError as exc:
            raise Failed("it took too long") from exc
    elif kind == "replaced":
        try:
            queue.Queue().get(timeout=60)
        except queue.Empty:
            raise Failed("nothing came")  # noqa: B904  # as drivers do it


@app.get("/wait/<kind>")
def waiting(kind: str) -> str:
    wait(kind)
    return "late"


@app.get("/stream")
def stream() -> Any:
    def ticks() -> Any:
        while True:
            yield "tick\n"
            time.sleep(0.05)

    return app.response_class(ticks())


@app.get("/bug/<where>")
def bug(where: str) -> str:
    """An error of its own, after its client has left."""
    try:
        time.sleep(60)
    except TimeoutError:
        if where == "except":
            return str(1 / 0)
        raise
    finally:
        if where == "finally":
            {}["missing"]
    return "late"


@app.post("/body/<how>")
def body(how: str) -> str:
    if how == "form":
        return str(len(request.form))
    if how == "json":
        return str(request.get_json())
    if how == "data":
        return str(len(request.data))
    if how == "stream":
        return str(len(request.stream.read()))
    try:
        return str(len(request.stream.read()))
    except Exception as exc:
        raise Failed("no body") from exc


logging.basicConfig(level=logging.INFO)
