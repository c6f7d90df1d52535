"""An application that, while it is imported, already uses what one worker must not share with another.

Under `--preload` that is the arbiter.
"""

import asyncio
import hashlib
import os
import socket
import threading
import time

import requests
from flask import Flask

IMPORTED_IN = os.getpid()
UPSTREAM = os.environ.get("ALONE_UPSTREAM", "")
VERSION = 1
client = requests.Session()
ticks: set[int] = set()


def tick() -> None:
    while True:
        ticks.add(os.getpid())
        time.sleep(0.01)


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


if UPSTREAM:
    client.get(UPSTREAM, timeout=10)
    socket.getaddrinfo("localhost", 80)
    asyncio.run(answer(1))
    hashlib.scrypt(b"x", salt=b"salt", n=2, r=1, p=1)
    threading.Thread(target=tick, name="ticker", daemon=True).start()
    time.sleep(0.05)

app = Flask(__name__)


@app.get("/")
def index() -> dict[str, object]:
    return {"pid": os.getpid(), "imported_in": IMPORTED_IN, "version": VERSION, "hooks": os.environ.get("HOOKS", "")}


@app.get("/sleep/<int:milliseconds>")
def sleep(milliseconds: int) -> dict[str, int]:
    time.sleep(milliseconds / 1000)
    return {"pid": os.getpid()}


@app.get("/everything")
def everything() -> dict[str, object]:
    """Each thing that greenroom does beside the worker class, used once."""
    return {
        "pid": os.getpid(),
        "upstream": client.get(UPSTREAM, timeout=10).json() if UPSTREAM else None,
        "coroutine": asyncio.run(answer(7)),
        "resolved": bool(socket.getaddrinfo("localhost", 80)),
        "hash": len(hashlib.scrypt(b"x", salt=b"salt", n=2, r=1, p=1)),
        "is_offloaded": getattr(hashlib.scrypt, "__offloaded__", False),
        "lock": type(threading.Lock()).__module__,
        "psycopg2_waits": wait_callback(),
        "ticks_here": os.getpid() in ticks,
    }


def wait_callback() -> bool:
    from greenroom.waits import postgres

    return postgres.is_installed()
