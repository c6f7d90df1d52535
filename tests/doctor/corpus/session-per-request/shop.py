"""A session, made anew each time."""

import requests
from flask import Flask

app = Flask(__name__)


@app.get("/weather")
def weather():
    session = requests.Session()  # <- client-per-request
    try:
        return session.get("http://127.0.0.1:9/weather", timeout=2).json()
    except requests.RequestException:
        return {"error": "unknown"}, 502
