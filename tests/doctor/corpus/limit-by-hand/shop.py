"""An in-memory rate limit by hand."""

import time
from collections import defaultdict, deque
from functools import wraps

from flask import Flask, request

calls = defaultdict(deque)  # <- per-worker-state


def limited(per_minute):
    def decorate(view):
        @wraps(view)
        def inner(*args, **kwargs):
            seen = calls[request.remote_addr]
            now = time.time()
            while seen and seen[0] < now - 60:
                seen.popleft()
            if len(seen) >= per_minute:
                return "slow down", 429
            seen.append(now)
            return view(*args, **kwargs)

        return inner

    return decorate


app = Flask(__name__)


@app.get("/")
@limited(10)
def index():
    return "shop"
