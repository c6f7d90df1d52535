"""Two locks, taken in both orders."""

import threading

from flask import Flask

app = Flask(__name__)
stock = threading.Lock()
orders = threading.Lock()


@app.post("/order")
def order():
    with stock:
        with orders:  # <- deadlock
            return "", 201


@app.post("/cancel")
def cancel():
    with orders:
        with stock:  # <- deadlock
            return "", 204


@app.get("/")
def index():
    return "shop"
