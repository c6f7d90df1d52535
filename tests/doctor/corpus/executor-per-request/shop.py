"""A mail exporter by executor.submit on a per-request thread pool."""

from concurrent.futures import ThreadPoolExecutor
from smtplib import SMTP

from flask import Flask

app = Flask(__name__)


@app.post("/export")
def export():
    ThreadPoolExecutor().submit(deliver, "a@example.org")  # <- thread-per-request
    return "", 202


def deliver(to):
    with SMTP("127.0.0.1", 25, timeout=10) as server:
        server.sendmail("shop@example.org", [to], "export")


@app.get("/")
def index():
    return "shop"
