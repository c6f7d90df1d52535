"""A shared session, and one call of it that nobody bounds."""

import requests
from flask import Flask

app = Flask(__name__)
session = requests.Session()


class Stock:
    def __init__(self):
        self.session = requests.Session()

    def count(self, item):
        return self.session.get(f"http://127.0.0.1:9/stock/{item}")  # <- no-timeout


stock = Stock()


@app.get("/stock")
def show():
    try:
        session.get("http://127.0.0.1:9/prices", timeout=(1, 2))
        return stock.count("chair").json()
    except requests.RequestException:
        return {"error": "unknown"}, 502
