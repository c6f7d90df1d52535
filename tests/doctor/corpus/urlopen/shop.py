from urllib.request import urlopen

from flask import Flask

app = Flask(__name__)


@app.get("/x")
def x():
    try:
        return urlopen("http://127.0.0.1:9/").read()  # <- no-timeout
    except OSError:
        return "none", 502
