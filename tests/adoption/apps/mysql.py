"""PyMySQL: a query, a transaction, and a wait in the server."""

import os
from urllib.parse import urlsplit

import pymysql
from flask import Flask

app = Flask(__name__)


def connect():
    url = urlsplit(os.environ["ADOPTION_MYSQL"])
    return pymysql.connect(host=url.hostname, port=url.port, user=url.username, database="mysql", autocommit=True)


@app.get("/one")
def one():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 + 1, SLEEP(0.1)")
        return {"row": list(cursor.fetchone())}
