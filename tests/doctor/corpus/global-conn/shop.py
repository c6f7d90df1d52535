import psycopg2
from flask import Flask

app = Flask(__name__)
try:
    conn = psycopg2.connect("dbname=shop host=127.0.0.1 port=9 connect_timeout=1")  # <- shared-connection
except psycopg2.OperationalError:
    conn = None


@app.post("/x")
def x():
    with conn.cursor() as cur:
        cur.execute("select 1")
        return str(cur.fetchone())


@app.get("/")
def i():
    return "x"
