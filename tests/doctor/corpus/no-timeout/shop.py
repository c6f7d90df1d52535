"""Rates from elsewhere."""

import os

import requests
from flask import Flask

app = Flask(__name__)
RATES = os.environ.get("RATES_URL", "http://127.0.0.1:9")


def rates(currency):
    answer = requests.post(f"{RATES}/rates", json={"currency": currency})  # <- no-timeout
    answer.raise_for_status()
    return answer.json()


@app.get("/price")
def price():
    try:
        return rates("EUR")
    except requests.RequestException:
        return {"error": "no rates"}, 502
