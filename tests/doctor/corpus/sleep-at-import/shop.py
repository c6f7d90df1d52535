"""Waits for the database to come up, at import."""

import time

from flask import Flask


def wait_for_database():
    for _ in range(3):
        time.sleep(0.1)  # <- sleep-at-import


wait_for_database()
app = Flask(__name__)


@app.get("/")
def index():
    return "shop"
