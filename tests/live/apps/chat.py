"""Flask-SocketIO, as its documentation has it."""

import os
from typing import Any

from flask import Flask
from flask_socketio import SocketIO, emit

app = Flask(__name__)
socketio = SocketIO(app, async_mode=os.environ["ASYNC_MODE"], ping_interval=1, ping_timeout=5)
present: list[str] = []


@app.get("/readyz")
def ready() -> str:
    return "ok"


@app.get("/present")
def show() -> str:
    return str(len(present))


@socketio.on("connect")
def connected(*_: Any) -> None:
    present.append("one")


@socketio.on("disconnect")
def disconnected(*_: Any) -> None:
    present.pop()


@socketio.on("echo")
def echo(text: str) -> None:
    emit("echoed", text)


@socketio.on("tick")
def tick() -> None:
    socketio.start_background_task(ticks)


def ticks() -> None:
    for number in range(20):
        socketio.sleep(0.2)
        socketio.emit("ticked", number)
