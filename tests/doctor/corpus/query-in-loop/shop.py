"""A statement for each item, by hand."""

import sqlite3

from flask import Flask, g

app = Flask(__name__)


def database():
    if "db" not in g:
        g.db = sqlite3.connect(":memory:")
        g.db.execute("CREATE TABLE prices (item INTEGER PRIMARY KEY, price INTEGER)")
        g.db.executemany("INSERT INTO prices VALUES (?, ?)", [(item, item * 2) for item in range(30)])
    return g.db


@app.get("/total")
def total():
    db = database()
    found = 0
    for item in range(30):
        found += db.execute("SELECT price FROM prices WHERE item = ?", (item,)).fetchone()[0]  # <- n-plus-one
    return {"total": found}
