"""A socket that stays open."""

from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)


@sock.route("/echo")  # <- websocket-under-budget
def echo(ws):
    while True:
        ws.send(ws.receive())


@app.get("/")
def index():
    return "shop"
