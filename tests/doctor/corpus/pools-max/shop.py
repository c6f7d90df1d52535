import os

from flask import Flask
from sqlalchemy import create_engine

app = Flask(__name__)
URL = os.environ.get("DATABASE_URL", "postgresql+psycopg2://localhost/shop")
engine = create_engine(URL, pool_size=50, max_overflow=50)  # <- pools-above-max-connections


@app.get("/")
def i():
    return "x"
