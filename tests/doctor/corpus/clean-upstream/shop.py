"""Calls with timeouts, over a session made once."""

from http.cookiejar import DefaultCookiePolicy

import requests
from flask import Flask

app = Flask(__name__)
session = requests.Session()
session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))


@app.get("/rates")
def rates():
    try:
        answer = session.get("http://127.0.0.1:9/rates", timeout=(1, 2))
    except requests.RequestException:
        return {"error": "no rates"}, 502
    return answer.json()
