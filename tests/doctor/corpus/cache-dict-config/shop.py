from flask import Flask
from flask_caching import Cache

app = Flask(__name__)
cache = Cache(app, config={"CACHE_TYPE": "SimpleCache"})  # <- per-worker-state


@app.get("/")
def i():
    return "x"
