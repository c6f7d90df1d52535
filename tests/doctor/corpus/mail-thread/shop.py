"""Mail by a thread for each request."""

import threading
import time

from flask import Flask

app = Flask(__name__)


def send(to):
    time.sleep(0.5)


def notify(to):
    threading.Thread(target=send, args=(to,), daemon=True).start()  # <- thread-per-request


@app.get("/order")
def order():
    notify("owner@example.com")
    return {"ordered": True}
