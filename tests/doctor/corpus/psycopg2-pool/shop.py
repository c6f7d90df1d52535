from flask import Flask
from psycopg2.pool import ThreadedConnectionPool

app = Flask(__name__)
pool = None


def get_pool():
    global pool
    if pool is None:
        pool = ThreadedConnectionPool(1, 3, "dbname=shop")  # <- pool-too-small
    return pool


@app.post("/x")
def x():
    conn = get_pool().getconn()
    try:
        return "x"
    finally:
        get_pool().putconn(conn)


@app.get("/")
def i():
    return "x"
