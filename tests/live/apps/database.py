"""An application over one database, as anybody would write it; when the database fails it answers and logs why."""

import os
import time

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["FAULTY_DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
    "pool_size": 4,
    "max_overflow": 0,
    "pool_timeout": 20,
    "pool_pre_ping": True,
    "connect_args": {"connect_timeout": 5, "application_name": "faulty"},
}
db = SQLAlchemy(app)


@app.get("/readyz")
def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/echo/<nonce>")
def echo(nonce: str) -> dict[str, str]:
    return {"nonce": db.session.execute(text("SELECT :nonce"), {"nonce": nonce}).scalar()}


@app.get("/sleep/<int:milliseconds>")
def sleep(milliseconds: int) -> dict[str, str]:
    db.session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": milliseconds / 1000})
    return {"slept": str(milliseconds)}


@app.get("/held/<int:milliseconds>")
def held(milliseconds: int) -> dict[str, str]:
    """Holds a connection while it waits for something else."""
    db.session.execute(text("SELECT 1"))
    time.sleep(milliseconds / 1000)
    return {"held": str(milliseconds)}


@app.get("/pool")
def pool() -> dict[str, int]:
    return {"checked_out": db.engine.pool.checkedout(), "sessions": len(db.session.registry.registry)}


@app.errorhandler(SQLAlchemyError)
def database_failed(exc: SQLAlchemyError) -> tuple[dict[str, str], int]:
    app.logger.warning("%s failed: %s: %s", request.path, type(exc).__name__, exc)
    return {"error": f"{type(exc).__name__}: {exc}"}, 503
