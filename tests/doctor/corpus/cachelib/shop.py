from cachelib import SimpleCache
from flask import Flask

app = Flask(__name__)
cache = SimpleCache(default_timeout=300)  # <- per-worker-state


@app.get("/")
def i():
    cache.set("a", 1)
    return "x"
