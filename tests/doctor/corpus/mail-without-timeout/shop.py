"""Mail, sent within the request by a server that may be slow."""

import smtplib

from flask import Flask, request

app = Flask(__name__)


@app.post("/contact")
def contact():
    with smtplib.SMTP("mail.example.com", 25) as server:  # <- no-timeout
        server.sendmail("shop@example.com", ["owner@example.com"], request.form["text"])
    return "", 204


@app.get("/")
def index():
    return "shop"
