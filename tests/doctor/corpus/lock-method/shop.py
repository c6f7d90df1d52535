import threading

import requests
from flask import Flask

app = Flask(__name__)


class Tokens:
    def __init__(self):
        self._lock = threading.Lock()
        self._token = None

    def get(self):
        with self._lock:  # <- lock-held
            answer = requests.post("http://127.0.0.1:9/token", timeout=2)
            return answer.json()["token"]


tokens = Tokens()


@app.post("/x")
def x():
    return tokens.get()


@app.get("/")
def i():
    return "x"
