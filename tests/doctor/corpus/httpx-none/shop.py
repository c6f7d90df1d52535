import httpx
from flask import Flask

app = Flask(__name__)
client = httpx.Client(timeout=None)  # <- no-timeout


@app.post("/x")
def x():
    return client.get("http://127.0.0.1:9/").text


@app.get("/")
def i():
    return "x"
