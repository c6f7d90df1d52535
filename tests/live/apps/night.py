"""An application for troubles that come at night, each behind a path of its own; the rest are in trouble.py."""

import ctypes
import gc
import json
import logging
import os
import re
import socket
import sqlite3
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from flask import Flask, make_response, request
from sqlalchemy import create_engine, text

app = Flask(__name__)
UPSTREAM = os.environ.get("UPSTREAM_URL", "http://127.0.0.1:9")
FLAG = Path(os.environ.get("NIGHT_FLAG", "/nonexistent"))
four_threads = ThreadPoolExecutor(4, thread_name_prefix="prices")
rates_lock, first_lock, second_lock = threading.Lock(), threading.Lock(), threading.Lock()
two_at_a_time = threading.Semaphore(2)
kept: list[Any] = []
big: list[Any] = []
engine: Any = None
if "NIGHT_DATABASE_URL" in os.environ:
    engine = create_engine(
        os.environ["NIGHT_DATABASE_URL"],
        pool_size=int(os.environ.get("NIGHT_POOL", "5")),
        max_overflow=0,
        pool_timeout=60,
    )


@app.get("/ok")
def ok() -> dict[str, bool]:
    return {"ok": True}


@app.get("/up/<int:ms>")
def up(ms: int) -> dict[str, int]:
    answer = requests.get(f"{UPSTREAM}/{ms}", timeout=30)
    answer.raise_for_status()
    return {"size": len(answer.content)}


@app.get("/retry")
def retry() -> dict[str, int]:
    for _ in range(4):
        try:
            return {"status": requests.get(f"{UPSTREAM}/5", timeout=10).status_code}
        except requests.ConnectionError as exc:
            error = exc
    raise error


@app.get("/redis")
def cached() -> dict[str, str]:
    import redis

    client = redis.Redis.from_url(os.environ["NIGHT_REDIS_URL"], socket_timeout=30)
    client.set(f"cart:{time.time_ns()}", "x" * 50_000)
    return {"value": "set"}


@app.get("/price")
def price() -> dict[str, str]:
    prices: dict[str, str] = {}
    return {"price": prices["price"]}


@app.get("/lock")
def locked() -> dict[str, int]:
    with rates_lock:
        return up(300)


@app.get("/semaphore")
def semaphore() -> dict[str, int]:
    with two_at_a_time:
        return up(400)


@app.get("/executor")
def executor() -> dict[str, int]:
    return four_threads.submit(up, 500).result()


@app.get("/query")
def query() -> dict[str, int]:
    with engine.begin() as connection:
        return {"n": connection.execute(text("SELECT 1")).scalar()}


@app.get("/long-query")
def long_query() -> dict[str, bool]:
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_sleep(1)"))
    return {"ok": True}


@app.get("/many-queries")
def many_queries() -> dict[str, int]:
    with engine.begin() as connection:
        return {"sum": sum(connection.execute(text("SELECT CAST(:n AS int)"), {"n": n}).scalar() for n in range(401))}


@app.get("/write")
def write() -> dict[str, bool]:
    with engine.begin() as connection:
        connection.execute(text("UPDATE stock SET n = n + 1 WHERE id = 1"))
    return {"ok": True}


@app.get("/forgotten-connection")
def forgotten_connection() -> dict[str, bool]:
    connection = engine.connect()
    kept.append(connection)
    connection.execute(text("SELECT 1"))
    return {"ok": True}


@app.get("/visit")
def visit() -> dict[str, bool]:
    connection = sqlite3.connect(os.environ["NIGHT_SQLITE"], timeout=5)
    connection.execute("CREATE TABLE IF NOT EXISTS visits (at REAL)")
    connection.execute("INSERT INTO visits VALUES (?)", (time.time(),))
    time.sleep(0.2)
    connection.commit()
    connection.close()
    return {"ok": True}


@app.get("/report")
def report() -> dict[str, bool]:
    requests.get(f"{UPSTREAM}/{700 if FLAG.exists() else 20}", timeout=30)
    return {"ok": True}


@app.get("/garbage")
def garbage() -> dict[str, int]:
    if not big:
        big.extend([{"a": [n], "b": {"c": n}} for n in range(700_000)])
    found = [[n] for n in range(30_000)]
    gc.collect()
    return {"n": len(found)}


@app.get("/export")
def export() -> Any:
    if not big:
        big.extend({"id": n, "name": "x" * 60} for n in range(600_000))
    return json.dumps(big)


@app.get("/system")
def system() -> dict[str, int]:
    return {"status": os.system("sleep 1.5")}


@app.get("/c-wait")
def c_wait() -> dict[str, int]:
    return {"left": ctypes.CDLL(None).usleep(700_000)}


@app.get("/keep")
def keep() -> dict[str, int]:
    kept.append(bytearray(b"x" * 5_000_000))
    return {"kept": len(kept)}


@app.get("/die/<int:number>")
def die(number: int) -> dict[str, int]:
    os.kill(os.getpid(), number)
    return {}


@app.get("/full")
def full() -> dict[str, bool]:
    with open("/dev/full", "w") as file:
        file.write("x" * 100)
    return {"ok": True}


@app.get("/memory")
def memory() -> dict[str, int]:
    return {"size": len(bytearray(1 << 46))}


@app.get("/work/<int:ms>")
def work(ms: int) -> dict[str, int]:
    until = time.thread_time() + ms / 1000
    while time.thread_time() < until:
        pass
    return {"ms": ms}


@app.post("/upload")
def upload() -> dict[str, int]:
    return {"size": len(request.get_data())}


@app.get("/log")
def log() -> dict[str, bool]:
    app.logger.warning("x" * 3000)
    return {"ok": True}


@app.get("/left")
def left() -> dict[str, bool]:
    with first_lock:
        time.sleep(0.2)
        with second_lock:
            return {"ok": True}


@app.get("/right")
def right() -> dict[str, bool]:
    with second_lock:
        time.sleep(0.2)
        with first_lock:
            return {"ok": True}


@app.get("/regex")
def regex() -> dict[str, bool]:
    return {"matches": bool(re.match(r"(a+)+$", "a" * 26 + "b"))}


@app.get("/name")
def name() -> dict[str, bool]:
    socket.getaddrinfo("db.internal.example", 443)
    return {"ok": True}


@app.get("/child")
def child() -> dict[str, bool]:
    subprocess.run(["sleep", "20"], check=True)
    return {"ok": True}


@app.get("/slow-import")
def slow_import() -> dict[str, bool]:
    import night_slow_module  # type: ignore[import-not-found]  # made by the test: its import takes long

    return {"ok": bool(night_slow_module)}


@app.get("/slow-file")
def slow_file() -> dict[str, int]:
    with open(os.environ["NIGHT_FIFO"]) as file:
        return {"size": len(file.read())}


@app.get("/cookie")
def cookie() -> Any:
    answer = make_response({"ok": True})
    answer.set_cookie("cart", request.cookies.get("cart", "") + "x" * 700)
    return answer


@app.get("/remote-log")
def remote_log() -> dict[str, bool]:
    remote.warning("y" * 100_000)
    return {"ok": True}


class RemoteHandler(logging.Handler):
    """Writes to a peer over TCP within the handler's lock, as logging.handlers.SocketHandler does."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.sock = socket.create_connection(("127.0.0.1", port))

    def emit(self, record: logging.LogRecord) -> None:
        self.sock.sendall(self.format(record).encode())


remote = logging.getLogger("night.remote")
if "NIGHT_LOG_PORT" in os.environ:
    remote.addHandler(RemoteHandler(int(os.environ["NIGHT_LOG_PORT"])))


def spin() -> None:
    while True:
        for _ in range(30_000):
            pass
        time.sleep(0)


if "NIGHT_SPIN" in os.environ:
    threading.Thread(target=spin, daemon=True, name="refresh").start()
