"""As small as can be."""

from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/")
def index():
    return jsonify(ok=True)


@app.get("/items/<int:number>")
def item(number):
    return {"item": number}
