"""A driver that waits in C; it may not even be installed where this is read."""

from flask import Flask

try:
    import MySQLdb  # <- driver-cannot-wait
except ImportError:
    MySQLdb = None

app = Flask(__name__)


@app.get("/")
def index():
    return {"driver": MySQLdb is not None}
