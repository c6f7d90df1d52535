"""Flask routes that wait 100 ms for another HTTP service, as anybody would write them; UPSTREAM_URL is where it is."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from flask import Flask
from requests.adapters import HTTPAdapter

FAN_OUT = 20
url = os.environ["UPSTREAM_URL"] + "/delay/100"
app = Flask(__name__)
session = requests.Session()
# For those who need it: requests' own pools keep 10 connections, and make and close all above that.
session.mount("http://", HTTPAdapter(pool_maxsize=200))


@app.get("/")
def ready() -> dict[str, Any]:
    return {}


@app.get("/session")
def with_session() -> dict[str, Any]:
    return {"upstream": session.get(url, timeout=30).json()}


@app.get("/bare")
def bare() -> dict[str, Any]:
    return {"upstream": requests.get(url, timeout=30).json()}


@app.get("/fanout")
def fan_out() -> dict[str, Any]:
    with ThreadPoolExecutor(FAN_OUT) as pool:
        return {"upstreams": list(pool.map(lambda _: session.get(url, timeout=30).json(), range(FAN_OUT)))}
