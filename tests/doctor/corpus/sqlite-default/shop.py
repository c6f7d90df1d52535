"""SQLite unless somebody thinks of it."""

import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///shop.db")  # <- sqlite
db = SQLAlchemy(app)


@app.get("/")
def index():
    return "shop"
