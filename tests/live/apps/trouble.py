"""An application with everything that goes wrong in production, each behind a path of its own.

/regex/<n>        a regular expression that backtracks: C code that holds the GIL, twice as long for each more
/gil/<n>          C code that holds the GIL and lets no signal in, for some n seconds
/compute/<ms>     Python that computes: the GIL changes hands, the loop does not turn
/pool/<ms>        a query of that length, with one of the pool's few connections
/upstream/<ms>    asks UPSTREAM_URL, which takes its time
/held/<ms>        the same, with a database connection in its hands
/locks/<order>    takes two locks in one order or the other
/query/<ms>       a query that takes its time
/work/<ms>        computes that long and returns: for overload
/fail             an exception
/lock/<ms>        asks UPSTREAM_URL with a lock in its hands
/executor/<ms>    the same, in an executor of two threads
/retries          asks a port where nobody listens, four times
/queries/<n>      so many queries
/c-wait           a wait in a C library
/keep/<mb>        keeps so much memory
/full             writes to a disk that is full
/crash            a segmentation fault
/file/MS          one after the other, by the lock of a file
"""

import ctypes
import fcntl
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import requests
from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

app = Flask(__name__)
UPSTREAM_URL = os.environ.get("UPSTREAM_URL", "http://127.0.0.1:9")
engine = create_engine(
    os.environ.get("TROUBLE_DATABASE_URL", "postgresql+psycopg2://"), pool_size=3, max_overflow=0, pool_timeout=60
)
two_threads = ThreadPoolExecutor(2, thread_name_prefix="prices")
kept: list[bytes] = []
left, right = threading.Lock(), threading.Lock()


@app.get("/")
@app.get("/readyz")
def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/file/<int:ms>")
def file(ms: int) -> dict[str, int]:
    with open(__file__) as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        time.sleep(ms / 1000)
    return {"ms": ms}


@app.get("/regex/<int:n>")
def regex(n: int) -> dict[str, bool]:
    return {"matches": bool(re.match(r"(a+)+$", "a" * n + "b"))}


@app.get("/gil/<int:n>")
def gil(n: int) -> dict[str, int]:
    return {"sum": sum(range(n * 100_000_000))}


@app.get("/compute/<int:ms>")
def compute(ms: int) -> dict[str, int]:
    until = time.monotonic() + ms / 1000
    while time.monotonic() < until:
        pass
    return {"ms": ms}


@app.get("/work/<int:ms>")
def work(ms: int) -> dict[str, int]:
    until = time.thread_time() + ms / 1000
    while time.thread_time() < until:
        pass
    return {"ms": ms}


@app.get("/pool/<int:ms>")
@app.get("/query/<int:ms>")
def pool(ms: int) -> dict[str, int]:
    with Session(engine) as session:
        session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": ms / 1000})
    return {"ms": ms}


@app.get("/upstream/<int:ms>")
def upstream(ms: int) -> dict[str, int]:
    requests.get(f"{UPSTREAM_URL}/{ms}", timeout=60)
    return {"ms": ms}


@app.get("/held/<int:ms>")
def held(ms: int) -> dict[str, int]:
    with Session(engine) as session:
        user = session.scalar(text("SELECT 42"))
        requests.get(f"{UPSTREAM_URL}/{ms}", timeout=60)
        session.commit()
    return {"user": user}


@app.get("/locks/left")
def locks_left() -> dict[str, str]:
    with left:
        time.sleep(0.5)
        with right:
            return {"order": "left"}


@app.get("/locks/right")
def locks_right() -> dict[str, str]:
    with right:
        time.sleep(0.5)
        with left:
            return {"order": "right"}


@app.get("/sleep/<int:ms>")
def sleep(ms: int) -> dict[str, int]:
    time.sleep(ms / 1000)
    return {"ms": ms}


@app.get("/lock/<int:ms>")
def lock(ms: int) -> dict[str, int]:
    with left:
        return upstream(ms)


@app.get("/executor/<int:ms>")
def executor(ms: int) -> dict[str, int]:
    return two_threads.submit(upstream, ms).result()


@app.get("/retries")
def retries() -> dict[str, str]:
    for _ in range(4):
        try:
            requests.get("http://127.0.0.1:9/", timeout=5)
        except requests.ConnectionError as exc:
            error = exc
    raise error


@app.get("/queries/<int:n>")
def queries(n: int) -> dict[str, int]:
    with Session(engine) as session:
        return {"sum": sum(session.scalar(text("SELECT CAST(:n AS int)"), {"n": number}) for number in range(n))}


@app.get("/c-wait")
def c_wait() -> dict[str, int]:
    return {"left": ctypes.CDLL(None).sleep(2)}


@app.get("/keep/<int:mb>")
def keep(mb: int) -> dict[str, int]:
    kept.append(b"x" * (mb * 1_000_000))
    return {"kept": len(kept)}


@app.get("/full")
def full() -> dict[str, str]:
    with open("/dev/full", "w") as file:
        file.write("a line")
    return {"status": "written"}


@app.get("/crash")
def crash() -> dict[str, str]:
    return {"memory": str(ctypes.string_at(0))}


@app.get("/fail")
def fail() -> None:
    raise ValueError("as asked")
