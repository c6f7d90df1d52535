"""Works in another folder for a while."""

import os

from flask import Flask

app = Flask(__name__)


@app.post("/pack")
def pack():
    os.chdir("/")  # <- process-state
    return {"files": len(os.listdir())}


@app.get("/")
def index():
    return "shop"
