"""One SQLAlchemy Session for all."""

from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker

app = Flask(__name__)
engine = create_engine("sqlite:///:memory:")
Session = sessionmaker(engine)
session = Session()  # <- shared-db-session


@app.get("/one")
def one():
    return {"one": session.execute(text("SELECT 1")).scalar()}
