"""A report is made in a process of its own."""

import multiprocessing

from flask import Flask, request

app = Flask(__name__)


def report(month):
    return sum(number * month for number in range(1000))


@app.post("/reports")
def make_report():
    process = multiprocessing.Process(target=report, args=(request.form["month"],))  # <- multiprocessing
    process.start()
    return "", 202


@app.get("/")
def index():
    return "shop"
