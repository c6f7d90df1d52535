"""One Flask route that returns a dict."""

from typing import Any

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> dict[str, Any]:
    return {"message": "hello", "numbers": [1, 2, 3]}
