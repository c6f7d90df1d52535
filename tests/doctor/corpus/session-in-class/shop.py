import requests
from flask import Flask


class Client:
    def __init__(self, base):
        self.base = base
        self.http = requests.Session()

    def fetch(self, path):
        return self.http.request("GET", self.base + path)  # <- no-timeout


client = Client("http://127.0.0.1:9")
app = Flask(__name__)


@app.post("/x")
def x():
    return client.fetch("/a").text


@app.get("/")
def i():
    return "x"
