"""An application to cut requests in: each kind of wait, and replies that must not be mixed up.

DATABASE_URL is a PostgreSQL, UPSTREAM an address that `benchmarks.deadlines` listens on (host:port), REDIS_URL a Redis
or empty. It knows nothing of the server that runs it, but for how to make names slow.
"""

import os
import queue
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
import requests
from flask import Flask, g, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text

POOL_SIZE = 10
NEVER_SECONDS = 60.0
UPSTREAM = os.environ["UPSTREAM"]

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_timeout": 30}
db = SQLAlchemy(app)
small = create_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=0, pool_timeout=30)
http = requests.Session()
redis_url = os.environ.get("REDIS_URL")
store = redis.Redis.from_url(redis_url, max_connections=200) if redis_url else None
shared_executor = ThreadPoolExecutor(20)
sleeping_executor = ThreadPoolExecutor(20)  # what sleeps in it goes on when its request is over
tls_context = ssl.create_default_context()
held = threading.Lock()
held.acquire()
names_go = threading.Event()
names_go.set()
# Errors that must never be: another request's reply or session.
mixed_up: list[str] = []
late_by: list[tuple[str, float]] = []
counts = {"begun": 0, "torn_down": 0}


def tls() -> None:
    host, _, port = UPSTREAM.partition(":")
    with socket.create_connection((host, int(port)), NEVER_SECONDS) as sock:
        tls_context.wrap_socket(sock, server_hostname="localhost")


def name() -> None:
    socket.getaddrinfo(f"slow.number{random.randrange(10**9)}.example.org", 80)


def process() -> None:
    child = subprocess.Popen(["sleep", str(NEVER_SECONDS)])
    try:
        child.wait()
    finally:
        child.kill()


def pool() -> None:
    with small.connect(), small.connect():
        pass


def thread() -> None:
    threads = [threading.Thread(target=time.sleep, args=[NEVER_SECONDS]) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


WAITS: dict[str, Callable[[], Any]] = {
    "tls": tls,
    "dns": name,
    "lock": held.acquire,
    "queue": lambda: queue.Queue[int]().get(),
    "process": process,
    "sleep": lambda: time.sleep(NEVER_SECONDS),
    "pool": pool,
    "query": lambda: db.session.execute(text("SELECT pg_sleep(60)")),
    "upstream": lambda: http.get(f"http://{UPSTREAM}/echo/x/60000", timeout=NEVER_SECONDS),
    "redis": lambda: store.blpop("nothing", NEVER_SECONDS) if store else time.sleep(NEVER_SECONDS),
    "thread": thread,
    "executor": lambda: sleeping_executor.submit(time.sleep, NEVER_SECONDS).result(),
}


@app.get("/ready")
def ready() -> dict[str, Any]:
    return {"process": os.getpid()}


@app.get("/wait/<kind>")
def wait(kind: str) -> dict[str, Any]:
    WAITS[kind]()
    return {"waited": kind}


@app.get("/late/<kind>")
def late(kind: str) -> dict[str, Any]:
    """Notes by how much the wait outlasted the budget: its client has been answered by then."""
    try:
        WAITS[kind]()
    except Exception:  # each kind has its own timeout error
        late_seconds = time.monotonic() - request.environ["greenroom.deadline"].deadline
        late_by.append((kind, late_seconds * 1000))
    return {}


@app.get("/late")
def late_waits() -> list[tuple[str, float]]:
    """Return the late waits noted since the last question."""
    noted = list(late_by)
    late_by.clear()
    return noted


@app.get("/retry/<kind>")
def retry(kind: str) -> dict[str, Any]:
    while True:
        try:
            # Else SQLAlchemy refuses at once what follows a lost connection: a loop that never waits.
            db.session.rollback()
            WAITS[kind]()
        except:  # noqa: E722
            continue


@app.get("/spin/<int:milliseconds>")
def spin(milliseconds: int) -> dict[str, Any]:
    until = time.monotonic() + milliseconds / 1000
    while time.monotonic() < until:
        pass
    time.sleep(0.001)
    return {"spun": milliseconds}


@app.get("/ask/<service>/<nonce>")
def ask(service: str, nonce: str) -> dict[str, Any]:
    """One service alone: to see when it is there again."""
    ASKS[service](nonce)
    return {"nonce": nonce}


@app.get("/names/<what>")
def names(what: str) -> dict[str, Any]:
    """Let the name that `ask_name` looks up "hang", or "go"."""
    (names_go.clear if what == "hang" else names_go.set)()
    return {"names": what}


@app.route("/mixed/<nonce>", methods=["GET", "POST"])
def mixed(nonce: str) -> dict[str, Any]:
    """Ask each service for what only this request asked for, in any order, some of it at the same time."""
    counts["begun"] += 1
    g.torn_down_slowly = True
    expect(nonce, "session", db.session.info.setdefault("owner", nonce))
    steps = [ask_database, ask_upstream, ask_store, ask_in_threads, write]
    for step in random.sample(steps, 3):
        step(nonce)
        expect(nonce, "session", db.session.info.get("owner"))
    if "long" in request.args:
        time.sleep(NEVER_SECONDS)
    db.session.commit()
    return {"nonce": nonce}


def ask_name(nonce: str) -> None:
    socket.getaddrinfo(f"number{nonce}.faulty.example.net", 80)  # another name each time, so that it is looked up


def milliseconds() -> int:
    return random.randrange(30)


def ask_database(nonce: str) -> None:
    statement = text("SELECT :nonce, pg_sleep(:seconds)")
    row = db.session.execute(statement, {"nonce": nonce, "seconds": milliseconds() / 1000}).one()
    expect(nonce, "database", row[0])


def write(nonce: str) -> None:
    db.session.execute(text("INSERT INTO nonces (nonce) VALUES (:nonce)"), {"nonce": nonce})
    seen = db.session.execute(text("SELECT max(nonce) FROM nonces WHERE nonce = :nonce"), {"nonce": nonce}).scalar()
    expect(nonce, "written", seen)
    if random.random() < 0.5:
        db.session.commit()


def ask_upstream(nonce: str) -> None:
    session: Any = random.choice([http, requests])
    answer = session.get(f"http://{UPSTREAM}/echo/{nonce}/{milliseconds()}", timeout=NEVER_SECONDS)
    expect(nonce, "upstream", answer.text)


def ask_store(nonce: str) -> None:
    if store is None:
        return
    with store.pipeline(transaction=False) as pipeline:
        pipeline.blpop(["nothing"], timeout=0.001 + milliseconds() / 1000)
        pipeline.echo(nonce)
        expect(nonce, "redis", pipeline.execute()[1].decode())


def ask_in_threads(nonce: str) -> None:
    with ThreadPoolExecutor(2) as own:
        for job in [pool.submit(ask_upstream, nonce) for pool in (own, shared_executor, own)]:
            job.result()


def expect(nonce: str, where: str, found: Any) -> None:
    if found != nonce:
        mixed_up.append(f"{where}: {found!r} for {nonce!r}")
        print(f"MIXED UP {mixed_up[-1]}", file=sys.stderr, flush=True)


@app.teardown_appcontext
def tear_down(_: BaseException | None) -> None:
    """Runs before Flask-SQLAlchemy's: here many deadlines pass."""
    if g.get("torn_down_slowly"):
        time.sleep(milliseconds() / 1000)
        counts["torn_down"] += 1


@app.get("/state")
def state() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "mixed_up": mixed_up,
        "sessions": len(db.session.registry.registry),  # of requests that were to be removed
        "checked_out": db.engine.pool.checkedout() + small.pool.checkedout(),
        "redis_in_use": len(getattr(store.connection_pool, "_in_use_connections", ())) if store else 0,
        **counts,
    }


ASKS: dict[str, Callable[[str], None]] = {"database": ask_database, "upstream": ask_upstream, "name": ask_name}


def slow_names() -> None:
    """Let names under .example.org take for ever to be looked up, where Greenroom looks them up, and those under
    .faulty.example.net while `names_go` is not set; these are this machine.
    """
    try:
        from greenroom.waits import dns
    except ImportError:
        return
    names: Any = getattr(dns.Resolver, "names", None)
    if names is None:
        return
    plain = names.look_up

    def look_up(host: Any, *args: Any) -> Any:
        if str(host).endswith(".example.org"):
            real_sleep(NEVER_SECONDS)
        if str(host).endswith(".faulty.example.net"):
            while not names_go.is_set():
                real_sleep(0.01)
            return plain("127.0.0.1", *args)
        return plain(host, *args)

    names.look_up = look_up


def real_sleep(seconds: float) -> None:
    from gevent import monkey

    monkey.get_original("time", "sleep")(seconds)


slow_names()
