"""Threads that the request waits for."""

import threading
import time

from flask import Flask

app = Flask(__name__)


@app.get("/all")
def everything():
    found = {}

    def fetch(name):
        time.sleep(0.01)
        found[name] = len(name)

    threads = [threading.Thread(target=fetch, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
