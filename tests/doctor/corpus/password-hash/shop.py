"""A hash of half a second with each request."""

import hashlib

from flask import Flask

app = Flask(__name__)


def digest(password):
    return hashlib.pbkdf2_hmac("sha256", password, b"salt of the shop", 700_000)  # <- computes


@app.get("/token")
def token():
    return digest(b"password").hex()
