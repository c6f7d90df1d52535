from threading import Thread

from flask import Flask, request
from flask_mailman import EmailMessage

app = Flask(__name__)


def send_async(app, msg):
    with app.app_context():
        msg.send()


@app.route("/signup", methods=["POST"])
def signup():
    msg = EmailMessage("hi", "welcome", to=[request.form["email"]])
    t = Thread(target=send_async, args=(app, msg))  # <- thread-per-request
    t.start()
    return "ok"


@app.get("/")
def i():
    return "x"
