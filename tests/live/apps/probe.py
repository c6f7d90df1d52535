"""An application that waits in the ways applications wait, and tells what it saw."""

import os
import threading
import time

import psycopg2
from flask import Flask, request

app = Flask(__name__)
waiting = 0
most_waiting = 0


@app.get("/sleep/<int:ms>")
def sleep(ms: int) -> dict[str, int]:
    global waiting, most_waiting
    waiting += 1
    most_waiting = max(most_waiting, waiting)
    time.sleep(ms / 1000)
    waiting -= 1
    return {"pid": os.getpid()}


@app.get("/query/<int:ms>")
def query(ms: int) -> dict[str, int]:
    global waiting, most_waiting
    connection = psycopg2.connect(os.environ["PROBE_DATABASE_URL"])
    waiting += 1
    most_waiting = max(most_waiting, waiting)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", (ms / 1000,))
    waiting -= 1
    connection.close()
    return {"pid": os.getpid()}


@app.get("/seen")
def seen() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "most_waiting": most_waiting,
        "draining": request.environ.get("greenroom.draining"),
        "thread": threading.current_thread().name,
    }
