import psycopg2
from flask import Flask

app = Flask(__name__)


def get_conn():
    return psycopg2.connect("dbname=shop")  # <- client-per-request


@app.post("/x")
def x():
    conn = get_conn()
    cur = conn.cursor()
    cur.execute("select 1")
    return str(cur.fetchone())


@app.get("/")
def i():
    return "x"
