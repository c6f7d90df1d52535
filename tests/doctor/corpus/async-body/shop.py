"""An async view that reads what was sent."""

from flask import Flask, request

app = Flask(__name__)


@app.post("/events")
async def events():
    content = request.get_json()  # <- async-body
    return {"count": len(content)}


@app.get("/")
def index():
    return "shop"
