"""A query, then a call, and the transaction stays open."""

import requests
from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

app = Flask(__name__)
engine = create_engine("sqlite:///:memory:", poolclass=StaticPool)


def shipping(order):
    return requests.get(f"http://127.0.0.1:9/shipping/{order}", timeout=2)  # <- held-connection


@app.get("/order")
def order():
    with Session(engine) as session:
        found = session.execute(text("SELECT 7")).scalar()
        try:
            return shipping(found).json()
        except requests.RequestException:
            return {"order": found, "shipping": "unknown"}
