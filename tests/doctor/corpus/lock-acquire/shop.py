import threading
import time

from flask import Flask

app = Flask(__name__)
lock = threading.Lock()


@app.get("/x")
def x():
    lock.acquire()  # <- lock-held
    try:
        time.sleep(0.05)
    finally:
        lock.release()
    return "ok"
