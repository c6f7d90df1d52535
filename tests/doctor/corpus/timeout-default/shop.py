"""urllib through a wrapper that has a timeout of None by default."""

import json
import urllib.request

from flask import Flask

app = Flask(__name__)


def fetch(url, timeout=None):
    with urllib.request.urlopen(url, timeout=timeout) as answer:  # <- no-timeout
        return json.load(answer)


@app.get("/rates")
def rates():
    try:
        return fetch("http://127.0.0.1:9/")
    except OSError:
        return {}, 502
