"""Patches itself, when it is too late."""

import requests
from flask import Flask
from gevent import monkey

monkey.patch_all()  # <- patched-too-late

app = Flask(__name__)
session = requests.Session()


@app.get("/")
def index():
    return "shop"
