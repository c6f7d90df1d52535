"""Bottle: routes, a form, a static error."""

from bottle import Bottle, abort, request

app = Bottle()


@app.get("/hello/<name>")
def hello(name):
    return {"hello": name}


@app.post("/form")
def form():
    return {"got": request.forms.get("field")}


@app.get("/gone")
def gone():
    abort(410, "gone for good")
