"""SQLAlchemy's pool as it is by default."""

import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get(  # <- default-pool
    "DATABASE_URL", "postgresql+psycopg2://shop@127.0.0.1:9/shop"
)
db = SQLAlchemy(app)


@app.get("/")
def index():
    return "shop"
