"""A pattern that backtracks, on something that does not match."""

import re

from flask import Flask, request

app = Flask(__name__)
WORDS = re.compile(r"(?:\w+\s?)+$")


@app.get("/check")
def check():
    text = request.args.get("text", default="aaaaaaaaaaaaaaaaaaaaaa!", type=str)
    return {"ok": bool(WORDS.match(text))}  # <- stops-loop
