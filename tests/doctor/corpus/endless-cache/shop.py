from functools import cache

from flask import Flask

app = Flask(__name__)


@cache
def describe(name):  # <- grows
    return name * 100


@app.get("/d/<name>")
def d(name):
    return describe(name)
