"""Telling the application that its server is shutting down."""

from collections.abc import Callable, Iterable
from typing import Any

DRAINING_KEY = "greenroom.draining"
IS_DRAINING_KEY = "greenroom.is_draining"

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Draining:
    """WSGI middleware: tells the application that its server is shutting down, in environ["greenroom.draining"].

    For a stream that outlives this moment, environ["greenroom.is_draining"]() says it at any time.
    """

    def __init__(self, application: WSGIApplication, is_draining: Callable[[], bool]) -> None:
        self.application = application
        self.is_draining = is_draining

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ[DRAINING_KEY] = self.is_draining()
        environ[IS_DRAINING_KEY] = self.is_draining
        return self.application(environ, start_response)
