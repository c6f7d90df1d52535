"""A timeout by the process's alarm clock."""

import signal

from flask import Flask

app = Flask(__name__)


@app.post("/render")
def render():
    signal.alarm(5)  # <- signal-in-request
    return "", 204


@app.get("/")
def index():
    return "shop"
