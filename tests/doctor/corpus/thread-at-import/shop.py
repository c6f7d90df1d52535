"""A loop in the background that each worker has."""

import threading
import time

from flask import Flask

app = Flask(__name__)


def refresh():
    while True:
        time.sleep(30)


threading.Thread(target=refresh, daemon=True).start()  # <- thread-at-import


@app.get("/")
def index():
    return "shop"
