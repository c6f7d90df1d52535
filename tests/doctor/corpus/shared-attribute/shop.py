"""A service object that remembers the request it works for."""

import time

from flask import Flask, request

app = Flask(__name__)


class Basket:
    def __init__(self):
        self.owner = ""

    def describe(self):
        time.sleep(0.02)
        return f"basket of {self.owner}"


basket = Basket()


@app.get("/basket")
def show():
    basket.owner = request.args.get("owner", "nobody")  # <- shared-state
    return basket.describe()
