"""The configuration comes from elsewhere, at import."""

import urllib.error
import urllib.request

from flask import Flask


def load():
    try:
        with urllib.request.urlopen("http://127.0.0.1:9/configuration", timeout=1) as answer:  # <- io-at-import
            return answer.read()
    except urllib.error.URLError:
        return b"{}"


app = Flask(__name__)
app.config["REMOTE"] = load()


@app.get("/")
def index():
    return "shop"
