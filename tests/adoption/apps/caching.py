"""Flask-Caching in Redis: a view that is computed once, for all workers."""

import os

from flask import Flask
from flask_caching import Cache

app = Flask(__name__)
app.config.update(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=os.environ["ADOPTION_REDIS"], CACHE_DEFAULT_TIMEOUT=600)
cache = Cache(app)


@app.get("/double/<int:number>")
@cache.memoize()
def double(number):
    computed = cache.get("computed") or 0
    cache.set("computed", computed + 1)
    return {"double": 2 * number, "computed_before": computed}
