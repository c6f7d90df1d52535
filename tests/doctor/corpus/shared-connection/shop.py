"""One connection for all."""

import sqlite3

from flask import Flask

app = Flask(__name__)
connection = sqlite3.connect(":memory:", check_same_thread=False)  # <- shared-connection
connection.execute("CREATE TABLE visits (at REAL)")


@app.get("/visits")
def visits():
    return {"count": connection.execute("SELECT count(*) FROM visits").fetchone()[0]}
