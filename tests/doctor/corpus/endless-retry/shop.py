"""Tries until it works, whatever happens."""

import time

import requests
from flask import Flask

app = Flask(__name__)


@app.post("/sync")
def sync():
    while True:  # <- endless-retry
        try:
            return requests.get("http://127.0.0.1:9/items", timeout=2).json()
        except Exception:
            time.sleep(1)


@app.get("/")
def index():
    return "shop"
