"""An application for troubles that a stranger thought of, each behind a path of its own: see test_night_strangers."""

import logging
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from flask import Flask, Response, abort, request, session
from sqlalchemy import create_engine, text

app = Flask(__name__)
SECRET = Path(os.environ.get("STRANGERS_SECRET", "/nonexistent"))
app.secret_key = SECRET.read_text() if SECRET.exists() else "the same everywhere"
UPSTREAM = os.environ.get("UPSTREAM_URL", "http://127.0.0.1:9")
slots = threading.BoundedSemaphore(3)
never = threading.Event()
told = threading.Condition()
kept: list[Any] = []
log = logging.getLogger("shop")
engine: Any = None
if "STRANGERS_DATABASE_URL" in os.environ:
    engine = create_engine(os.environ["STRANGERS_DATABASE_URL"], pool_size=5, max_overflow=0, pool_timeout=60)


@app.get("/ok")
def ok() -> dict[str, bool]:
    return {"ok": True}


@app.get("/listen/<kind>")
def listen(kind: str) -> Any:
    """What streams and long polls do."""
    if kind == "event":
        never.wait(20)
    elif kind == "condition":
        with told:
            told.wait(20)
    else:
        return Response(events(), mimetype="text/event-stream")
    return {}


def events() -> Iterator[str]:
    messages: queue.Queue[str] = queue.Queue()
    for _ in range(4):
        try:
            yield messages.get(timeout=5)
        except queue.Empty:
            yield ": still here\n\n"


@app.get("/items")
def items() -> dict[str, int]:
    with engine.connect() as connection:
        return {"count": connection.execute(text("SELECT count(*) FROM items")).scalar()}


@app.get("/sell")
def sell() -> dict[str, bool]:
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        requests.get(f"{UPSTREAM}/2000", timeout=20)
    return {"ok": True}


@app.get("/stock")
def stock() -> dict[str, int]:
    return {"status": requests.get(f"{UPSTREAM}/3000", timeout=20).status_code}


@app.get("/slot")
def slot() -> Any:
    slots.acquire()
    if request.args.get("bad"):
        return {"error": "unknown"}, 400  # and the place is gone
    slots.release()
    return {}


@app.get("/thread")
def thread() -> dict[str, bool]:
    threading.Thread(target=never.wait, daemon=True).start()
    return {}


@app.get("/program")
def program() -> dict[str, bool]:
    kept.append(subprocess.Popen(["sleep", "300"]))
    return {}


@app.get("/noisy")
def noisy() -> dict[str, bool]:
    for number in range(10_000):
        log.warning("item %d of the order was found in order", number)
    return {}


@app.get("/compute")
def compute() -> dict[str, bool]:
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    return {}


@app.get("/login")
def login() -> dict[str, bool]:
    session["user"] = 1
    return {}


@app.get("/me")
def me() -> dict[str, int]:
    return {"user": session["user"]} if "user" in session else abort(401)
