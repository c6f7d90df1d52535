"""Memory with an end: a bounded cache and a bounded list."""

import functools
import threading
from collections import deque

from flask import Flask

app = Flask(__name__)
latest = deque(maxlen=20)
lock = threading.Lock()


@functools.lru_cache(maxsize=100)
def square(number):
    return number * number


@app.get("/square/<int:number>")
def show(number):
    with lock:
        latest.append(number)
    return {"square": square(number)}
