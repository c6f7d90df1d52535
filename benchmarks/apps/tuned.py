"""Four applications whose best settings are not the default ones, for `python -m benchmarks tune`.

/cpu       computes for 8 ms
/upstream  computes for 1 ms, waits 100 ms for an upstream
/database  computes for 1 ms, holds a database connection for 40 ms; DB_POOL_SIZE is the pool of a worker
/mixed     computes for 2 ms, waits 20 ms for an upstream, and 10 ms with the one lock of its worker
"""

import functools
import os
import threading
import time

import requests
from flask import Flask
from sqlalchemy import Engine, create_engine, text

app = Flask(__name__)
upstream = requests.Session()
lock = threading.Lock()


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def ask_upstream(milliseconds: int) -> None:
    upstream.get(f"{os.environ['UPSTREAM_URL']}/delay/{milliseconds}", timeout=10).raise_for_status()


@functools.cache
def engine() -> Engine:
    size = int(os.environ.get("DB_POOL_SIZE", "2"))
    return create_engine(os.environ["DATABASE_URL"], pool_size=size, max_overflow=0, pool_timeout=10)


@app.get("/cpu")
def cpu() -> str:
    compute(0.008)
    return "done"


@app.get("/upstream")
def wait_for_upstream() -> str:
    compute(0.001)
    ask_upstream(100)
    return "done"


@app.get("/database")
def wait_for_database() -> str:
    compute(0.001)
    with engine().connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.04)"))
    return "done"


@app.get("/mixed")
def mixed() -> str:
    compute(0.002)
    ask_upstream(20)
    with lock:
        time.sleep(0.010)
    return "done"
