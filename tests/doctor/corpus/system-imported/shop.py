from flask import Flask

app = Flask(__name__)


@app.get("/")
def i():
    return "x"


@app.post("/os")
def o():
    from os import system

    system("sleep 1")  # <- stops-loop
    return ""
