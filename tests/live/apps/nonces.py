"""An application that carries each request's nonce through all that a worker's requests could share."""

import contextvars
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from flask import Flask, Response, g, jsonify, request, session

app = Flask(__name__)
app.secret_key = "for tests"
url = os.environ["UPSTREAM_URL"]
shared = requests.Session()
executor = ThreadPoolExecutor(8)
of_context: contextvars.ContextVar[str] = contextvars.ContextVar("of_context", default="")
of_thread = threading.local()


def sees() -> list[str]:
    """All places in which this request's nonce should be, and nobody else's."""
    return [of_context.get(), getattr(of_thread, "nonce", ""), g.get("nonce", ""), request.headers.get("X-Nonce", "")]


@app.get("/ready")
def ready() -> str:
    return "ready"


@app.post("/echo/<nonce>")
def echo(nonce: str) -> Response:
    before = sees()
    of_context.set(nonce)
    of_thread.nonce = nonce
    g.nonce = nonce
    session["nonces"] = [*session.get("nonces", []), nonce][-3:]
    time.sleep(int(request.args.get("ms", 0)) / 1000)
    body = request.get_data(as_text=True)
    found: list[Any] = [asked(nonce, requests), asked(nonce, shared)]
    found += executor.map(lambda way: asked(nonce, way), (requests, shared))
    threads = [threading.Thread(target=lambda: found.append(asked(nonce, requests))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fields = {name: value for name, value in request.headers if name.startswith("X-")}
    answer = jsonify(
        before=before, after=sees(), body=body, upstream=found, fields=fields, query=request.query_string.decode()
    )
    answer.headers["X-Nonce"] = nonce
    return answer


def asked(nonce: str, way: Any) -> str:
    try:
        answer = way.get(f"{url}/{nonce}", headers={"X-Nonce": nonce}, timeout=20)
    except requests.RequestException as exc:
        return f"failed: {type(exc).__name__}"
    return str(answer.text)
