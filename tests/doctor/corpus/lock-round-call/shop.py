"""A lock, kept while somebody else is asked."""

import threading
import time

from flask import Flask

app = Flask(__name__)
lock = threading.Lock()


def ask():
    time.sleep(0.05)
    return {"rate": 1.1}


@app.get("/rate")
def rate():
    with lock:  # <- lock-held
        return ask()
