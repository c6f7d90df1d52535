"""A module that takes its time, imported where it is needed."""

from flask import Flask

app = Flask(__name__)


@app.get("/forecast")
def forecast():
    import tables  # <- import-in-request

    return {"rows": len(tables.ROWS)}
