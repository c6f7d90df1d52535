"""One FastAPI route that waits for one query of ten rows: SQLAlchemy's asyncio over asyncpg."""

import os
from typing import Any

from fastapi import FastAPI
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

POOL_SIZE = 20
QUERY = text("SELECT id, author, title, votes FROM benchmark_messages WHERE topic = :topic ORDER BY id LIMIT 10")

app = FastAPI()
url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+asyncpg")
engine = create_async_engine(url, pool_size=POOL_SIZE, max_overflow=0, pool_timeout=30)


@app.get("/")
async def messages() -> dict[str, Any]:
    async with engine.connect() as connection:
        rows = (await connection.execute(QUERY, {"topic": 7})).mappings().all()
    return {"rows": [dict(row) for row in rows]}
