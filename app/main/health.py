"""For load balancers and orchestrators: does the process live, and should it get requests?"""

from typing import Any

from flask import request
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from ..extensions import db
from . import blueprint


@blueprint.get("/healthz")
def healthz() -> dict[str, str]:
    """The process lives. Touches nothing else, so a database that is down restarts no server."""
    return {"status": "ok"}


@blueprint.get("/readyz")
def readyz() -> Any:
    """Requests are welcome: the database answers and the server is not shutting down."""
    # Set by a server that drains; servers that don't know the key simply never drain from our point of view.
    if request.environ.get("greenroom.draining"):
        return {"status": "draining"}, 503
    try:
        with db.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return {"status": "database unavailable"}, 503
    return {"status": "ready"}
