"""A small application to watch a worker with: it waits, blocks, reads, and tells who answered."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent

time.sleep(float(os.environ.get("BOOT_SECONDS", "0")))
if os.path.exists(os.environ.get("BROKEN_IF_EXISTS", "")):
    raise RuntimeError("this code does not start")
hoard: list[bytes] = []


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    what, _, number = environ["PATH_INFO"].strip("/").partition("/")
    if what == "sleep":
        time.sleep(float(number))
    elif what == "block":
        until = time.monotonic() + float(number)
        while time.monotonic() < until:
            pass
    elif what in ("events", "endless"):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return events(environ["greenroom.is_draining"] if what == "events" else bool)
    elif what == "spawn":
        gevent.spawn(write_after, float(number))
    elif what == "exit":
        gevent.spawn_later(0.2, leave, int(number))  # when this one is answered
    elif what == "thread":
        threading.Thread(target=write_after, args=(float(number),)).start()
    elif what == "hoard":
        hoard.append(b"x" * 1_000_000 * int(number))
    body = str(os.getpid()).encode()
    if what == "draining":
        body = b"draining" if environ.get("greenroom.draining") else b"serving"
    elif what == "echo":
        body = environ["wsgi.input"].read()
    elif what == "large":
        body = b"x" * int(number)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def events(is_over: Callable[[], bool]) -> Iterator[bytes]:
    while not is_over():
        yield b"data: tick\n\n"
        time.sleep(0.1)


def leave(code: int) -> None:
    sys.exit(code)


def write_after(seconds: float) -> None:
    """The work that some requests leave behind."""
    try:
        time.sleep(seconds)
        print("left behind and finished", flush=True)
    finally:
        print("left behind and cleaned up", flush=True)
