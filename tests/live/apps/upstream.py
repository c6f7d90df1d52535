"""An application that asks an upstream, with a Session and without."""

import os
from typing import Any

import requests
from flask import Flask

app = Flask(__name__)
session = requests.Session()
url = os.environ["UPSTREAM_URL"]


@app.get("/session/<path:path>")
def with_session(path: str) -> dict[str, Any]:
    return {"upstream": session.get(f"{url}/{path}", timeout=60).json()}


@app.get("/bare/<path:path>")
def bare(path: str) -> dict[str, Any]:
    return {"upstream": requests.get(f"{url}/{path}", timeout=60).json()}


@app.get("/stubborn/<path:path>")
def stubborn(path: str) -> dict[str, Any]:
    """Tries again whatever happens."""
    while True:
        try:
            return {"upstream": requests.get(f"{url}/{path}", timeout=60).json()}
        except requests.RequestException:
            continue
