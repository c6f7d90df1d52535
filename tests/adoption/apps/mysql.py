"""PyMySQL: a query, a wait in the server, a transaction that is rolled back and one that is not."""

import os
from urllib.parse import urlsplit

import pymysql
from flask import Flask

app = Flask(__name__)


def connect():
    url = urlsplit(os.environ["ADOPTION_MYSQL"])
    return pymysql.connect(host=url.hostname, port=url.port, user=url.username, autocommit=False)


@app.get("/one")
def one():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 + 1, SLEEP(0.1)")
        return {"row": list(cursor.fetchone())}


@app.post("/sell/<thing>")
def sell(thing):
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS shop")
        cursor.execute("CREATE TABLE IF NOT EXISTS shop.sold (thing VARCHAR(40)) ENGINE=InnoDB")
        cursor.execute("INSERT INTO shop.sold VALUES (%s)", (thing,))
        if thing == "nothing":
            connection.rollback()
        connection.commit()
        cursor.execute("SELECT thing FROM shop.sold ORDER BY thing")
        return {"sold": [row[0] for row in cursor]}
