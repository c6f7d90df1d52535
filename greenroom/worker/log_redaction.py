"""Log lines about requests without the secrets that requests carry.

gunicorn writes targets into its error log and its access log as they came: with the tokens of whoever resets a
password, in the query or in the path, and the Referer carries those of the page before. Here its code gets a log and a
request that show them as `shown` does, whichever way the request came.
"""

import sys
from datetime import timedelta
from typing import Any
from wsgiref.types import WSGIEnvironment

from gunicorn.workers.base import Worker

from .. import redaction
from .log_floods import Floods
from .request import ClientRequest

# Keys of an environ with a target in them, and how each is shown.
SHOWN = {
    "RAW_URI": redaction.target,
    "REQUEST_URI": redaction.target,
    "PATH_INFO": redaction.path,
    "QUERY_STRING": redaction.query,
    "HTTP_REFERER": redaction.target,
}
REFERER = "REFERER"


def asked(request: ClientRequest) -> str:
    """Method and target, for a line of the log."""
    return f"{redaction.line(str(request.method))} {redaction.target(str(request.uri))}"


def access(log: Any, response: Any, request: ClientRequest, environ: WSGIEnvironment, took: timedelta) -> None:
    """Write the line of the access log, by whichever logger is configured."""
    seen = {name: show(environ[name]) for name, show in SHOWN.items() if isinstance(environ.get(name), str)}
    log.access(response, ShownRequest(request), environ | seen, took)


class ShownRequest:
    """A request as logs may see it."""

    def __init__(self, request: ClientRequest) -> None:
        self._request = request

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._request, name)
        if name == "uri":
            return redaction.target(value)
        if name == "path":
            return redaction.path(value)
        if name == "query":
            return redaction.query(value)
        if name == "headers":
            return [(key, redaction.target(text) if key == REFERER else text) for key, text in value]
        return value


class ShownLog:
    """gunicorn's log for code of gunicorn's that writes targets into it, and the same traceback for each request."""

    def __init__(self, log: Any, floods: Floods) -> None:
        self._log = log
        self._floods = floods

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def warning(self, message: str, *values: Any, **options: Any) -> None:
        self._log.warning(redaction.words(message) if not values else message, *_words(values), **options)

    def exception(self, message: str, *values: Any, **options: Any) -> None:
        if not self._floods.is_one_more(sys.exc_info()[1]):
            self._log.exception(message, *_words(values), **options)

    def access(self, response: Any, request: ClientRequest, environ: WSGIEnvironment, took: timedelta) -> None:
        access(self._log, response, request, environ, took)


def _words(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(redaction.words(value) if isinstance(value, str) else value for value in values)


class ErrorTeller(Worker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's way to answer and to log an error, with our log; it is no other worker."""

    def __init__(self, cfg: Any, log: Any, floods: Floods) -> None:
        self.cfg = cfg
        self.log = ShownLog(log, floods)
