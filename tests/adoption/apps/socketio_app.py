"""Flask-SocketIO over long polling: a handshake, and an event that is answered."""

import os

from flask import Flask
from flask_socketio import SocketIO

app = Flask(__name__)
socketio = SocketIO(app, async_mode=os.environ.get("ADOPTION_ASYNC_MODE") or None)


@socketio.on("add")
def add(x, y):
    return x + y


@app.get("/")
def index():
    return {"ok": True}
