"""The driver stands in the URL only."""

import os

from flask import Flask

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get(
    "DATABASE_URL",
    "mssql+pyodbc://shop@example/shop?driver=ODBC+Driver+18",  # <- driver-cannot-wait
)


@app.get("/")
def index():
    return "shop"
