"""An application whose time goes where its routes say, and that does what operators have to find."""

import ctypes
import gc
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from flask import Flask, request
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

app = Flask(__name__)
UPSTREAM_URL = os.environ.get("UPSTREAM_URL", "")
DATABASE_URL = os.environ.get("INSIGHT_DATABASE_URL", "postgresql+psycopg2://")
engine = create_engine(DATABASE_URL, pool_size=4, max_overflow=0)
TROUBLED = re.compile(r"(a+)+$")
first_lock, second_lock = threading.Lock(), threading.Lock()
leaked_lock, collected_lock = threading.Lock(), threading.Lock()
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
    until = time.monotonic() + ms / 1000
    while (left := until - time.monotonic()) > 0:  # it wakes early when it is looked at
        hold_gil.usleep(int(left * 1_000_000) + 1)  # the line that sleeps
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
        if second.acquire(timeout=8):  # the second lock
            second.release()


@app.get("/deadlock/<int:way>")
def deadlock(way: int) -> dict[str, int]:
    take(*((first_lock, second_lock) if way else (second_lock, first_lock)))
    return {"way": way}


@app.get("/leak")
def leak() -> dict[str, bool]:
    return {"taken": leaked_lock.acquire(timeout=1)}  # the line that leaks


@app.get("/need/<int:seconds>")
def need(seconds: int) -> dict[str, bool]:
    return {"taken": leaked_lock.acquire(timeout=seconds)}


class Collected:
    def __del__(self) -> None:
        if collected_lock.acquire(timeout=8):  # the line in the garbage collector
            collected_lock.release()


@app.get("/collect")
def collect() -> dict[str, str]:
    garbage: Any = Collected()
    garbage.itself = garbage
    del garbage
    with collected_lock:  # the line that is collected in
        gc.collect()
    return {}


@app.get("/held/<ending>")
def held(ending: str) -> dict[str, Any]:
    """A query, then an upstream; in between a commit, a rollback, or nothing."""
    with Session(engine) as session:
        session.scalar(text("SELECT 1"))  # the line that used it
        if ending != "nothing":
            getattr(session, ending)()
        requests.get(f"{UPSTREAM_URL}/200", timeout=60)  # the line that waits
        session.commit()
    return {"ending": ending}


@app.get("/parts")
def parts() -> dict[str, Any]:
    """Something of everything."""
    spin(20)
    with Session(engine) as session:
        session.execute(text("SELECT pg_sleep(0.06)"))
    requests.get(f"{UPSTREAM_URL}/80", timeout=60)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda ms: requests.get(f"{UPSTREAM_URL}/{ms}", timeout=60).status_code, [50, 60, 70]))
    time.sleep(0.04)
    return {}


@app.get("/slices/<int:count>/<int:ms>")
def slices(count: int, ms: int) -> dict[str, int]:
    """Compute in slices that are short."""
    for _ in range(count):
        spin(ms)
        time.sleep(0)
    return {"count": count}


def fetch(ms: int) -> int:
    return requests.get(f"{UPSTREAM_URL}/{ms}", timeout=60).status_code  # the line that fans out


@app.get("/fan/<int:count>")
def fan(count: int) -> dict[str, list[int]]:
    with ThreadPoolExecutor(count) as threads:
        return {"answers": list(threads.map(fetch, [3000] * count))}


@app.get("/hostile/<path:name>")
def hostile(name: str) -> dict[str, str]:
    return {"name": name}


@app.get("/snapshot")
def snapshot() -> dict[str, Any]:
    """Return the watch thread's answer to the ops process."""
    from greenroom.insight.snapshot import snapshot

    worker = request.environ["greenroom.deadline"].answer.wire.owner.serving.worker
    worker.serving.insight.count()
    return snapshot(worker)


@app.get("/stacks/<id>")
def stacks(id: str) -> dict[str, Any]:
    from greenroom.insight.snapshot import stacks

    return stacks(request.environ["greenroom.deadline"].answer.wire.owner.serving.worker, id) or {}
