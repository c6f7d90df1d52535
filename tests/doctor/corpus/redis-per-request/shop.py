import redis
from flask import Flask

app = Flask(__name__)


@app.post("/hit")
def hit():
    r = redis.Redis(host="127.0.0.1", port=9)  # <- client-per-request
    return str(r.incr("hits"))


@app.get("/")
def i():
    return "x"
