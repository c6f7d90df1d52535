"""flask-sock: a WebSocket that echoes."""

from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)


@sock.route("/echo")
def echo(ws):
    while True:
        ws.send(ws.receive()[::-1])


@app.get("/")
def index():
    return {"ok": True}
