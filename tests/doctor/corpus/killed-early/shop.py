"""Nothing wrong here; see the files beside it."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    return "shop"
