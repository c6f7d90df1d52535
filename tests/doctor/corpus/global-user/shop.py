"""The user of one request in a global that every request sees."""

import time

from flask import Flask, request

app = Flask(__name__)
current_user = None


def greeting():
    time.sleep(0.02)
    return f"Hello {current_user}"


@app.get("/hello")
def hello():
    global current_user
    current_user = request.args.get("user", "nobody")  # <- shared-state
    return greeting()
