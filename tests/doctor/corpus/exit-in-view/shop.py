"""Gives up by ending the process."""

import sys

from flask import Flask, request

app = Flask(__name__)


@app.post("/import")
def load():
    if not request.data:
        sys.exit(1)  # <- exits-in-request
    return "", 204


@app.get("/")
def index():
    return "shop"
