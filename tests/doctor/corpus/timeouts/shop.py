import requests
from flask import Flask

app = Flask(__name__)


@app.post("/x")
def x():
    return requests.get("http://127.0.0.1:9/", timeout=300).text  # <- timeouts-order


@app.get("/")
def i():
    return "x"
