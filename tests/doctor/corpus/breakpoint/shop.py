"""Somebody has looked for something, and left."""

from flask import Flask

app = Flask(__name__)


@app.post("/orders")
def order():
    breakpoint()  # <- debugger
    return "", 201


@app.get("/")
def index():
    return "shop"
