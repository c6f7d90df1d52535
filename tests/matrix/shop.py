"""An application with all that is replaced: requests, SQLAlchemy over sqlite3 and psycopg2, coroutines, locks."""

import asyncio
import os
import threading

import psycopg2
import requests
import sqlalchemy
from flask import Flask, request

VERSION = 1
MEETING = 4
LONG_WAIT_SECONDS = 60
CALLS = 5

app = Flask(__name__)
barrier = threading.Barrier(MEETING)
lock = threading.Lock()
at_work: set[int] = set()
postgres = sqlalchemy.create_engine(
    "postgresql+psycopg2://", creator=lambda: psycopg2.connect(os.environ["SHOP_DATABASE"]), pool_size=MEETING
)
sqlite = sqlalchemy.create_engine("sqlite:///shop.db", connect_args={"timeout": LONG_WAIT_SECONDS})
UPSTREAM = os.environ.get("SHOP_UPSTREAM", "")


@app.get("/")
def index():
    return {"version": VERSION, "pid": os.getpid(), "hooks": os.environ.get("HOOKS", "")}


@app.post("/echo")
def echo():
    return request.get_data()


@app.get("/meet")
def meet():
    """Answers when so many requests are here at once."""
    barrier.wait(LONG_WAIT_SECONDS)
    return {"met": True}


@app.get("/upstream")
def upstream():
    """So many requests are here, and as many of their calls."""
    return requests.get(f"http://{request.host}/meet", timeout=LONG_WAIT_SECONDS).json()


@app.get("/calls")
def calls():
    """The connections over which calls without a session went."""
    return [requests.get(UPSTREAM, timeout=LONG_WAIT_SECONDS).json() for _ in range(CALLS)]


@app.get("/never-answered")
def never_answered():
    return requests.get(f"{UPSTREAM}/never", timeout=LONG_WAIT_SECONDS).json()


@app.get("/never-queried")
def never_queried():
    with postgres.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_sleep(600) /* never queried */"))
    return {}


@app.get("/database-lock")
def database_lock():
    """Waits in PostgreSQL until the lock's holder gives it back."""
    with postgres.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(7)"))
        connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(7)"))
    return {"unlocked": True}


@app.get("/sqlite/count")
def count():
    with sqlite.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE IF NOT EXISTS sold (id INTEGER PRIMARY KEY)"))
        return {"sold": connection.execute(sqlalchemy.text("SELECT count(*) FROM sold")).scalar()}


@app.post("/sqlite/sell")
def sell():
    """Waits for the lock of the file while another process writes to it."""
    with sqlite.begin() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO sold DEFAULT VALUES"))
    return {"sold": True}


@app.get("/coroutine")
async def coroutine():
    """Answers when so many coroutines are here at once."""
    at_work.add(id(asyncio.current_task()))
    while len(at_work) < MEETING:
        await asyncio.sleep(0.01)
    return {"met": True}


@app.get("/lock/hold")
def hold_lock():
    """Has the lock, which a real thread waits for, while it calls."""
    with lock:
        return {"connection": requests.get(f"{UPSTREAM}/held", timeout=LONG_WAIT_SECONDS).json()}


@app.get("/lock/thread")
async def wait_for_lock():
    """A real thread waits for a lock that a request has."""

    def enter():
        with lock:
            return threading.current_thread() is not threading.main_thread()

    return {"in_thread": await asyncio.to_thread(enter)}


@app.get("/fails")
def fails():
    raise LookupError("no such tea")
