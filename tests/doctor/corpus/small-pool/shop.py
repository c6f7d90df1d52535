"""Two connections for everybody."""

import os

from flask import Flask
from sqlalchemy import create_engine

app = Flask(__name__)
URL = os.environ.get("DATABASE_URL", "postgresql+psycopg2://shop@127.0.0.1:9/shop")
engine = create_engine(URL, pool_size=2, max_overflow=0)  # <- pool-too-small


@app.get("/")
def index():
    return "shop"
