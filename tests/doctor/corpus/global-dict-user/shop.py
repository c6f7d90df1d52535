import time

from flask import Flask, jsonify, request

app = Flask(__name__)
context = {}


@app.get("/me")
def me():
    context["user"] = request.args.get("user")  # <- shared-state
    time.sleep(0.01)
    return jsonify(user=context["user"])
