"""Flask-Caching in memory, by its configuration."""

from flask import Flask

app = Flask(__name__)
app.config["CACHE_TYPE"] = "SimpleCache"  # <- per-worker-state
app.config["CACHE_DEFAULT_TIMEOUT"] = 60


@app.get("/")
def index():
    return "shop"
