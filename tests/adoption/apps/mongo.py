"""pymongo: one client for the process, made at import as everybody does; its monitors are threads."""

import os

from flask import Flask, request
from pymongo import MongoClient
from pymongo.errors import OperationFailure

app = Flask(__name__)
client = MongoClient(os.environ["ADOPTION_MONGO"], serverSelectionTimeoutMS=20_000)
notes = client.shop.notes


@app.post("/notes")
def add():
    notes.insert_one(request.get_json())
    return {"added": True}, 201


@app.get("/notes/<kind>")
def found(kind):
    return {"notes": [note["text"] for note in notes.find({"kind": kind})]}


@app.get("/wrong")
def wrong():
    try:
        client.shop.command("noSuchCommand")
    except OperationFailure as exc:
        return {"code": exc.code}
    return {}
