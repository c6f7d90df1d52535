"""The application under the soak."""

import asyncio
import contextvars
import json
import logging
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from flask import Flask, Response, g, jsonify, request, session

app = Flask(__name__)
app.secret_key = "for tests"
url = os.environ["SOAK_UPSTREAM"]
shared = requests.Session()
executor = ThreadPoolExecutor(8)
lock = threading.Lock()
counted = {"in": 0, "out": 0}
of_context: contextvars.ContextVar[str] = contextvars.ContextVar("of_context", default="")
of_thread = threading.local()
questions: "queue.Queue[Any]" = queue.Queue()


class Stalls(logging.Handler):
    """Keeps what insight says of each stall, as one line of JSON."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.file = (Path(folder) / f"stalls-{os.getpid()}.jsonl").open("a", buffering=1)

    def emit(self, record: logging.LogRecord) -> None:
        stall = getattr(record, "stall", None)
        if stall is not None:
            self.file.write(json.dumps(stall) + "\n")


logging.getLogger("gunicorn.error").addHandler(Stalls(os.environ["SOAK_FOLDER"]))


class Planned(Exception):
    """An error that is part of the plan."""


def answer_questions() -> None:
    """A helper of all requests."""
    while True:
        nonce, answers = questions.get()
        answers.put(nonce)


threading.Thread(target=answer_questions, daemon=True).start()


@app.get("/readyz")
def ready() -> str:
    return "ready"


def sees() -> list[str]:
    return [of_context.get(), getattr(of_thread, "nonce", ""), g.get("nonce", "")]


def asked(nonce: str, way: Any) -> str:
    try:
        return str(way.get(f"{url}/{nonce}", headers={"X-Nonce": nonce}, timeout=5).text)
    except requests.RequestException as exc:
        return f"failed: {type(exc).__name__}"


@app.post("/echo/<nonce>")
def echo(nonce: str) -> Response:
    before = sees()
    of_context.set(nonce)
    of_thread.nonce = nonce
    g.nonce = nonce
    session["nonce"] = nonce
    body = request.get_data(as_text=True)
    answers: queue.Queue[str] = queue.Queue()
    questions.put((nonce, answers))
    with lock:
        counted["in"] += 1
        time.sleep(0.001)
        counted["out"] += 1
    found = [asked(nonce, requests), asked(nonce, shared), executor.submit(asked, nonce, requests).result()]
    found.append(answers.get())
    return jsonify(before=before, after=sees(), body=body, found=found)


@app.get("/error/<nonce>")
def error(nonce: str) -> str:
    try:
        raise Planned(nonce)
    except Planned:
        asked(nonce, requests)
        raise


@app.get("/slow/<nonce>")
def slow(nonce: str) -> str:
    try:
        time.sleep(30)
    finally:
        asked(nonce, shared)
    return nonce


@app.get("/threads/<nonce>")
async def threads(nonce: str) -> str:
    """Real threads that share a lock with the greenlets."""

    def work() -> str:
        with lock:
            counted["in"] += 1
            counted["out"] += 1
        return asked(nonce, requests)

    found = await asyncio.gather(*(asyncio.to_thread(work) for _ in range(3)))
    return " ".join(sorted(set(found)))


@app.get("/compute/<nonce>")
def compute(nonce: str) -> str:
    until = time.monotonic() + 0.04
    while time.monotonic() < until:
        sum(range(1000))
    return nonce


@app.get("/fork/<nonce>")
def fork(nonce: str) -> str:
    """The child ends with an exit code of its own; it answers nobody."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.1,))
    child.start()
    child.join()
    return f"{nonce} {child.exitcode}"


@app.get("/large/<nonce>")
def large(nonce: str) -> Response:
    def parts() -> Iterator[bytes]:
        for _ in range(64):
            yield nonce.encode() * 100

    return Response(parts())


@app.get("/descriptors/<nonce>")
def descriptors(nonce: str) -> str:
    """For a moment there are none left, nearly or altogether."""
    held: list[int] = []
    try:
        while len(held) < 1000:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        time.sleep(0.3)
    finally:
        for descriptor in held:
            os.close(descriptor)
    return nonce
