import time

import requests
from flask import Flask

app = Flask(__name__)


def fetch():
    while True:  # <- endless-retry
        try:
            return requests.get("http://127.0.0.1:9", timeout=1)
        except requests.ConnectionError:
            time.sleep(0.5)
            continue


@app.post("/x")
def x():
    return fetch().text


@app.get("/")
def i():
    return "x"
