import logging
from concurrent.futures import ThreadPoolExecutor

import requests
from flask import Flask, g, jsonify, request, session
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

log = logging.getLogger(__name__)
app = Flask(__name__)
app.secret_key = "x"
http = requests.Session()
http.mount("https://", HTTPAdapter(pool_maxsize=50, max_retries=Retry(3)))
TIMEOUT = (3, 5)
REGISTRY = {}


def register(name):
    def deco(f):
        REGISTRY[name] = f
        return f

    return deco


@register("a")
def a():
    return "a"


@app.before_request
def start():
    g.user = request.headers.get("X-User")
    session["seen"] = True


@app.get("/many")
def many():
    with ThreadPoolExecutor(max_workers=3) as pool:
        return jsonify(list(pool.map(len, ["a", "bb", "ccc"])))


@app.get("/call")
def call():
    for attempt in range(3):
        try:
            return http.get("http://127.0.0.1:9/", timeout=TIMEOUT).text
        except requests.RequestException:
            log.warning("failed %d", attempt)
    return "down", 502


@app.get("/items")
def items():
    rows = {}
    for n in range(10):
        rows[n] = n
    return jsonify(rows)
