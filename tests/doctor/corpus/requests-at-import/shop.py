import requests
from flask import Flask

app = Flask(__name__)
try:
    KEYS = requests.get("http://127.0.0.1:9/keys", timeout=1).json()  # <- io-at-import
except requests.RequestException:
    KEYS = {}


@app.get("/")
def i():
    return "x"
