"""So many requests a minute, counted by each worker for itself."""

import time

from flask import Flask, abort, request

app = Flask(__name__)
hits = {}  # <- per-worker-state
LIMIT = 10_000


@app.before_request
def limit():
    minute = int(time.time() // 60)
    client = request.remote_addr
    seen, count = hits.get(client, (minute, 0))
    if seen == minute and count >= LIMIT:
        abort(429)
    hits[client] = (minute, count + 1 if seen == minute else 1)


@app.get("/")
def index():
    return "shop"
