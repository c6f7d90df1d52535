"""An application with what is replaced most: requests, SQLAlchemy over sqlite3 and psycopg2, threads."""

import os
import threading

import psycopg2
import requests
import sqlalchemy
from flask import Flask, request

MEETING = 4
LONG_WAIT_SECONDS = 60

app = Flask(__name__)
barrier = threading.Barrier(MEETING)
postgres = sqlalchemy.create_engine(
    "postgresql+psycopg2://", creator=lambda: psycopg2.connect(os.environ["SHOP_DATABASE"]), pool_size=MEETING
)
sqlite = sqlalchemy.create_engine("sqlite:///shop.db")


@app.get("/")
def index():
    return {"is_open": True}


@app.get("/meet")
def meet():
    """Answers when so many requests are here at once."""
    barrier.wait(LONG_WAIT_SECONDS)
    return {"met": True}


@app.get("/upstream")
def upstream():
    """So many requests are here, and as many of their calls."""
    return requests.get(f"http://{request.host}/meet", timeout=LONG_WAIT_SECONDS).json()


@app.get("/sqlite")
def ask_sqlite():
    with sqlite.connect() as connection:
        return {"answer": connection.execute(sqlalchemy.text("SELECT 41 + 1")).scalar()}


@app.get("/lock")
def lock():
    """Waits in PostgreSQL until whoever has the lock gives it back."""
    with postgres.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(7)"))
        connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(7)"))
    return {"unlocked": True}
