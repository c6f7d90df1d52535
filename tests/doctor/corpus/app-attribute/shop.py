"""A user kept on the application object."""

import time

from flask import Flask, request

app = Flask(__name__)


def current():
    return app.user


@app.before_request
def load():
    app.user = request.args.get("user")  # <- shared-state
    time.sleep(0.01)


@app.get("/me")
def me():
    return {"user": current()}
