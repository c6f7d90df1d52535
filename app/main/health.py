"""For load balancers and orchestrators: does the process live, and should it get requests?"""

from typing import Any

from flask import current_app, request

from .. import database
from .routes import blueprint


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
    if not database.is_reachable(current_app):
        return {"status": "database unavailable"}, 503
    return {"status": "ready"}
