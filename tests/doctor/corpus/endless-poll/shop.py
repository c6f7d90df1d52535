"""time.sleep polling in a request, bounded by nothing."""

import time

import requests
from flask import Flask

app = Flask(__name__)


@app.post("/build")
def build():
    while True:  # <- endless-retry
        answer = requests.get("http://127.0.0.1:9/build", timeout=3)
        if answer.json()["state"] == "done":
            return answer.text
        time.sleep(1)


@app.get("/")
def index():
    return "shop"
