"""The spelling that has changed its meaning."""

import os

from flask import Flask
from sqlalchemy import create_engine

app = Flask(__name__)
URL = os.environ.get("DATABASE_URL", "postgresql://shop@127.0.0.1:9/shop")  # <- postgresql-url-driver
engine = create_engine(URL, pool_size=30, max_overflow=0)


@app.get("/")
def index():
    return "shop"
