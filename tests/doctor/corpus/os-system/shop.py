"""Another program, run by the shell."""

import os

from flask import Flask

app = Flask(__name__)


@app.post("/thumbnails")
def thumbnails():
    os.system("convert original.png -resize 100x100 small.png")  # <- stops-loop
    return "", 204


@app.get("/")
def index():
    return "shop"
