"""Uploads beside wherever the server was started."""

import os

from flask import Flask, request

app = Flask(__name__)
UPLOADS = "uploads"


@app.post("/uploads")
def upload():
    os.makedirs(UPLOADS, exist_ok=True)  # <- relative-path
    request.files["file"].save(os.path.join(UPLOADS, "latest"))
    return "", 201


@app.get("/")
def index():
    return "shop"
