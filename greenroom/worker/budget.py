"""How long a request may take: what the settings say, for its path, and what a trusted proxy asks for.

    1. the longest prefix of the path in GREENROOM_ROUTE_BUDGETS, else GREENROOM_REQUEST_BUDGET_MILLISECONDS
    2. X-Request-Timeout-Ms from a trusted proxy, if that is shorter; anything but a whole number is ignored
    3. what the application says: environ["greenroom.deadline"].set(seconds), .extend(seconds)

The budget starts when the request's head is complete. It is for the answer's beginning: once the head of a stream is
sent, its reader wants it, however long it takes.
"""

from collections.abc import Mapping
from wsgiref.types import WSGIEnvironment

from ..in_flight import FOREVER
from .request import ClientRequest

HEADER_NAME = "X-REQUEST-TIMEOUT-MS"
HEADER = "HTTP_X_REQUEST_TIMEOUT_MS"
MOST_DIGITS = 9


class Budgets:
    """`default_seconds` and `routes` (prefix -> seconds): 0 means no budget."""

    def __init__(self, default_seconds: float, routes: Mapping[str, float]) -> None:
        self.default_seconds = default_seconds or FOREVER
        # The longest first; a prefix ends where a part of the path does.
        self.routes = [
            (prefix.rstrip("/"), routes[prefix] or FOREVER) for prefix in sorted(routes, key=len, reverse=True)
        ]

    def seconds(self, environ: WSGIEnvironment, *, is_peer_trusted: bool) -> float:
        """The budget of one request; infinite when it has none."""
        seconds = self.for_path(environ["PATH_INFO"]) if self.routes else self.default_seconds
        asked = environ.get(HEADER)
        if asked is not None and is_peer_trusted and asked.isascii() and asked.isdigit() and len(asked) <= MOST_DIGITS:
            return min(seconds, int(asked) / 1000)
        return seconds

    def for_path(self, path: str) -> float:
        for prefix, seconds in self.routes:
            if path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/"):
                return seconds
        return self.default_seconds


def environ_for_budget(request: ClientRequest) -> WSGIEnvironment:
    """Return what the budget depends on, of a request that has no environ yet."""
    asked = (value for name, value in request.headers if name == HEADER_NAME)
    return {"PATH_INFO": request.path, HEADER: next(asked, None)}
