"""A small Flask application with a database of SQLite, as Flask's tutorial has it: a connection for each request.

It knows nothing of the server that runs it.
"""

import os
import sqlite3

from flask import Flask, g

PATH = os.environ["SQLITE_PATH"]
POSTS = 1000
DONE = "done\n"

app = Flask(__name__)


def database() -> sqlite3.Connection:
    if "database" not in g:
        g.database = sqlite3.connect(PATH, detect_types=sqlite3.PARSE_DECLTYPES)
        g.database.row_factory = sqlite3.Row
    found: sqlite3.Connection = g.database
    return found


@app.teardown_appcontext
def close(error: BaseException | None) -> None:
    connection = g.pop("database", None)
    if connection is not None:
        connection.close()


@app.get("/")
def page() -> str:
    """Who is logged in, and ten posts."""
    database().execute("SELECT id, name FROM users WHERE id = ?", (1,)).fetchone()
    posts = database().execute("SELECT id, title FROM posts WHERE id > ? ORDER BY id LIMIT 10", (500,)).fetchall()
    return DONE if len(posts) == 10 else "wrong\n"


@app.get("/each")
def each() -> str:
    """A query for each of 50 posts."""
    rows = [database().execute("SELECT title FROM posts WHERE id = ?", (number,)).fetchone() for number in range(1, 51)]
    return DONE if all(rows) else "wrong\n"


@app.get("/write")
def write() -> str:
    database().execute("UPDATE posts SET votes = votes + 1 WHERE id = ?", (7,))
    database().commit()
    return DONE


def prepare() -> None:
    with sqlite3.connect(PATH) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("CREATE TABLE IF NOT EXISTS posts (id INTEGER PRIMARY KEY, title TEXT, votes INTEGER)")
        connection.execute("INSERT OR REPLACE INTO users VALUES (1, 'somebody')")
        posts = [(number, f"post {number}", 0) for number in range(POSTS)]
        connection.executemany("INSERT OR REPLACE INTO posts VALUES (?, ?, ?)", posts)
    connection.close()


prepare()
