"""One Flask route that waits for one query of ten rows: SQLAlchemy over psycopg2, as anybody would write it.

It knows nothing of the server that runs it.
"""

import os
from typing import Any

from flask import Flask
from sqlalchemy import create_engine, text

POOL_SIZE = 20
QUERY = text("SELECT id, author, title, votes FROM benchmark_messages WHERE topic = :topic ORDER BY id LIMIT 10")

app = Flask(__name__)
engine = create_engine(os.environ["DATABASE_URL"], pool_size=POOL_SIZE, max_overflow=0, pool_timeout=30)


@app.get("/")
def messages() -> dict[str, Any]:
    with engine.connect() as connection:
        rows = connection.execute(QUERY, {"topic": 7}).mappings().all()
    return {"rows": [dict(row) for row in rows]}
