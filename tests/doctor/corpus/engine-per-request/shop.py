"""An engine, and so a pool, for each request."""

from flask import Flask
from sqlalchemy import create_engine, text

app = Flask(__name__)


@app.get("/count")
def count():
    engine = create_engine("sqlite:///:memory:")  # <- client-per-request
    with engine.connect() as connection:
        return {"one": connection.execute(text("SELECT 1")).scalar()}
