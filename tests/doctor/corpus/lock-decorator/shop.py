"""A lock round a call, as a decorator of its own."""

import functools
import threading

import requests
from flask import Flask

app = Flask(__name__)
lock = threading.RLock()


def exclusive(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        with lock:  # <- lock-held
            return function(*args, **kwargs)

    return inner


@exclusive
def token():
    return requests.post("http://127.0.0.1:9/token", timeout=3)


@app.get("/")
def index():
    try:
        return token().text
    except requests.RequestException:
        return "none", 502
