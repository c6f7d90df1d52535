"""Every request is remembered, for ever."""

import time

from flask import Flask

app = Flask(__name__)
log = []


@app.after_request
def remember(response):
    log.append((time.time(), response.status_code))  # <- grows
    return response


@app.get("/")
def index():
    return "shop"
