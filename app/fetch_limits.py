"""Which requests may make this server fetch a board: none that a board's fetch makes, and not too many of one client.

Each board multiplies: one request becomes as many as it has sources. A board whose sources are its own results, or
those of a board that has its own for a source, would go on for ever. So a fetch says what it is (CDN-Loop, RFC 8586,
which proxies hand on), and a fetch is never answered with another fetch. A relay that drops the header, and a client
that asks again and again, are bounded by the count for each board and client.
"""

from flask import current_app, request
from werkzeug.exceptions import HTTPException

from .auth.rate_limits import Attempts, client_key
from .boards import BoardPlan
from .lanes import LOOP_HEADER, LOOP_TOKEN

WINDOW_MINUTES = 1


class LoopDetected(HTTPException):
    """508: the request was itself made for a board."""

    code = 508
    description = "This request was made to fetch a board; a board's results can't be a source of a board."


def check(planned: BoardPlan) -> None:
    """Count a fetch of the board. Raises LoopDetected or TooManyRequests.

    Called with no database connection held, since counting takes one.
    """
    if is_fetch(request.headers.getlist(LOOP_HEADER)):
        raise LoopDetected
    limit = current_app.extensions["config"].fetch_limit
    if limit:
        key = f"board-{planned.id}-{client_key()}"
        Attempts("fetch", key, limit=limit, minutes=WINDOW_MINUTES).use_one()


def is_fetch(values: list[str]) -> bool:
    """Whether one of the comma-separated tokens of CDN-Loop is ours; each may have parameters after a semicolon."""
    tokens = (token for value in values for token in value.split(","))
    return any(token.partition(";")[0].strip().lower() == LOOP_TOKEN for token in tokens)
