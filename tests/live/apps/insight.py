"""An application whose time goes where its routes say, and that does what operators have to find."""

import ctypes
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask, request

app = Flask(__name__)
TROUBLED = re.compile(r"(a+)+$")
first_lock, second_lock = threading.Lock(), threading.Lock()
hold_gil = ctypes.PyDLL(None)


@app.get("/readyz")
def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/spin/<int:ms>")
def spin(ms: int) -> dict[str, float]:
    """Compute on the wall clock; tells how long it really was."""
    began = time.monotonic()
    until = began + ms / 1000
    while time.monotonic() < until:
        pass
    return {"seconds": time.monotonic() - began}


@app.get("/regex/<int:length>")
def backtrack(length: int) -> dict[str, float]:
    began = time.monotonic()
    TROUBLED.match("a" * length + "b")  # the line that holds the GIL
    return {"seconds": time.monotonic() - began}


@app.get("/sleep/<int:ms>")
def sleep(ms: int) -> dict[str, int]:
    time.sleep(ms / 1000)
    return {"slept": ms}


@app.get("/blocking-sleep/<int:ms>")
def blocking_sleep(ms: int) -> dict[str, int]:
    """Blocks the loop without using the processor, and holds the GIL."""
    hold_gil.usleep(ms * 1000)
    return {"slept": ms}


@app.get("/mixed")
def mixed() -> dict[str, Any]:
    spin(10)
    time.sleep(0.03)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(time.sleep, [0.02] * 4))
    spin(5)
    return {"query": request.args.get("q")}


def take(first: threading.Lock, second: threading.Lock) -> None:
    with first:
        time.sleep(0.3)
        if second.acquire(timeout=20):
            second.release()


@app.get("/deadlock/<int:way>")
def deadlock(way: int) -> dict[str, int]:
    take(*((first_lock, second_lock) if way else (second_lock, first_lock)))
    return {"way": way}
