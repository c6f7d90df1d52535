"""An application that looks names up, with a name server that can be told to hang; all else is as it is in a worker."""

import os
import socket
import threading
import time
from typing import Any

from flask import Flask
from gevent import monkey

from greenroom.waits import dns

app = Flask(__name__)
real_sleep = monkey.get_original("time", "sleep")


def look_up(host: str, port: Any, *_: Any) -> list[Any]:
    """Look up as libc would: names that begin with `slow` are not answered while the file is there."""
    while host.startswith("slow") and os.path.exists(os.environ["HANGS_IF_EXISTS"]):
        real_sleep(0.02)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


dns.Resolver.names.look_up = look_up


@app.get("/look-up/<name>")
def found(name: str) -> tuple[dict[str, Any], int]:
    began = time.monotonic()
    try:
        address = socket.getaddrinfo(name, 80)[0][4][0]
    except socket.gaierror as exc:
        return {"errno": exc.errno, "seconds": time.monotonic() - began}, 502
    return {"address": address}, 200


@app.get("/seen")
def seen() -> dict[str, Any]:
    return {"thread": threading.current_thread().name}
