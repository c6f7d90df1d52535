import time

import state
from flask import Flask, request

app = Flask(__name__)


@app.before_request
def load():
    state.tenant = request.args.get("tenant", "none")  # <- shared-state


@app.get("/t")
def t():
    time.sleep(0.01)
    return state.tenant
