import http.client

from flask import Flask

app = Flask(__name__)


@app.get("/x")
def x():
    c = http.client.HTTPConnection("127.0.0.1", 9)  # <- no-timeout
    try:
        c.request("GET", "/")
        return c.getresponse().read()
    except OSError:
        return "none", 502
