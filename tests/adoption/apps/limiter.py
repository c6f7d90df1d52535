"""Flask-Limiter with its counters in Redis: the third request of a minute is refused, whichever worker has it."""

import os

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, storage_uri=os.environ["ADOPTION_REDIS"], headers_enabled=False)


@app.get("/open")
@limiter.exempt
def open_():
    return {"ok": True}


@app.get("/limited")
@limiter.limit("2/hour")
def limited():
    return {"ok": True}
