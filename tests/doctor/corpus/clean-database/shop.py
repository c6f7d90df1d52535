"""A pool with a size, a connection given back before the call."""

import requests
from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

app = Flask(__name__)
engine = create_engine("sqlite:///:memory:", poolclass=StaticPool)


@app.get("/order")
def order():
    with engine.connect() as connection:
        found = connection.execute(text("SELECT 7")).scalar()
    try:
        return requests.get(f"http://127.0.0.1:9/shipping/{found}", timeout=2).json()
    except requests.RequestException:
        return {"order": found}
