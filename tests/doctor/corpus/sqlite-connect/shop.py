import sqlite3
from pathlib import Path

from flask import Flask

app = Flask(__name__)
DB = Path(__file__).parent / "shop.db"


@app.get("/x")
def x():
    db = sqlite3.connect(DB)  # <- sqlite
    return str(db.execute("select 1").fetchone())
