"""The application that is compared: three routes that wait in three ways, written as anybody would write them.

It knows nothing of the server that runs it. UPSTREAM_URL and DATABASE_URL say where the other two parts are.
"""

import os
from typing import Any

import requests
from flask import Flask
from requests.adapters import HTTPAdapter
from sqlalchemy import create_engine, text

# The same pools under every worker class. An idle place costs nothing, so those with few threads lose nothing by it.
HTTP_POOL_SIZE = 200
DATABASE_POOL_SIZE = 20

QUERY = text("SELECT id, author, title, votes FROM benchmark_messages WHERE topic = :topic ORDER BY id LIMIT 10")

app = Flask(__name__)
upstream_url = os.environ["UPSTREAM_URL"]
engine = create_engine(os.environ["DATABASE_URL"], pool_size=DATABASE_POOL_SIZE, max_overflow=0, pool_timeout=30)

session = requests.Session()
session.trust_env = False  # a proxy named in somebody's environment is no part of the comparison
session.mount("http://", HTTPAdapter(pool_maxsize=HTTP_POOL_SIZE))


@app.get("/plain")
def plain() -> dict[str, Any]:
    """Waits for nothing."""
    return {"message": "hello", "numbers": [1, 2, 3]}


@app.get("/database")
def database() -> dict[str, Any]:
    """Waits for one query that returns ten rows."""
    with engine.connect() as connection:
        rows = connection.execute(QUERY, {"topic": 7}).mappings().all()
    return {"rows": [dict(row) for row in rows]}


@app.get("/upstream")
def upstream() -> dict[str, Any]:
    """Waits 100 ms for another HTTP service."""
    answer = session.get(f"{upstream_url}/delay/100", timeout=30)
    answer.raise_for_status()
    return {"upstream": answer.json()}
