"""Applications that take their client's socket: flask-sock, and raw uses of environ["gunicorn.socket"]."""

import queue
import socket
import time
from typing import Any

from flask import Flask, request
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)
ended: list[str] = []
stuck_ones: list[socket.socket] = []


@app.get("/")
@app.get("/readyz")
def ready() -> str:
    return "ok"


@app.get("/ended")
def show() -> str:
    return " ".join(ended)


@sock.route("/echo")
def echo(ws: Any) -> None:
    try:
        while True:
            ws.send(ws.receive())
    finally:
        ended.append("echo")
        print("echo has ended", flush=True)


@sock.route("/push")
def push(ws: Any) -> None:
    for number in range(30):
        ws.send(str(number))
        time.sleep(0.1)


@sock.route("/fail")
def fail(ws: Any) -> None:
    ws.receive()
    raise RuntimeError("in the middle of the frames")


@sock.route("/deaf")
def deaf(ws: Any) -> None:
    """Waits for something else than its client, as one does that passes on what others publish."""
    try:
        queue.Queue().get()
    finally:
        print("deaf has ended", flush=True)


@app.get("/peek")
def peek() -> dict[str, Any]:
    """The usual way to see whether a client is there, and a look at its address."""
    client = request.environ["gunicorn.socket"]
    if request.scheme == "https":  # where nobody can look into what comes
        return {"is_gone": False, "port": client.getpeername()[1]}
    client.setblocking(False)
    try:
        is_gone = client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        is_gone = False
    client.setblocking(True)
    return {"is_gone": is_gone, "port": client.getpeername()[1]}


@app.get("/slow")
def slow() -> str:
    time.sleep(3600)
    return "late"


@app.route("/stuck", methods=["GET", "POST"])
def stuck() -> str:
    """Waits where nobody may end it: a blocking socket without a timeout."""
    ours, theirs = socket.socketpair()
    stuck_ones.append(theirs)
    ours.recv(1)
    return "late"


@app.get("/free")
def free() -> str:
    while stuck_ones:
        stuck_ones.pop().sendall(b"x")
    return "ok"


def raw(client: Any) -> None:
    """A protocol of its own, for as long as the client likes."""
    client.sendall(b"hello\n")
    while data := client.recv(100):
        client.sendall(data.upper())
    ended.append("raw")


def write(client: Any) -> None:
    client.sendall(b"hello\n")
    try:
        while True:
            client.sendall(b"x" * 100_000)
            time.sleep(0.05)
    finally:
        ended.append("write")


@app.get("/write")
def write_in_a_view() -> str:
    write(request.environ["gunicorn.socket"])
    return "never"


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """Flask, and beside it what takes the socket as a WSGI application."""
    owner = {"/raw": raw, "/raw/write": write}.get(environ["PATH_INFO"])
    if owner is None:
        return app(environ, start_response)
    owner(environ["gunicorn.socket"])
    raise StopIteration
