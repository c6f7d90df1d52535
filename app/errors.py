"""Errors as people and programs want them: `application/problem+json` (RFC 9457) for the API, a page for the rest."""

import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, render_template, request
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, InternalServerError, ServiceUnavailable, UnprocessableEntity

from .extensions import db
from .logs import first_line

logger = logging.getLogger(__name__)
PROBLEM_JSON = "application/problem+json"
RETRY_SECONDS = 5
FORM_OUTDATED = (
    "This form is out of date: its page was opened before the last sign-in or sign-out. "
    "Go back, reload the page and send it again."
)


class WrongValues(UnprocessableEntity):
    """What was sent is wrong: `errors` names each wrong field, as `{"field", "message"}`."""

    def __init__(self, detail: str, errors: list[dict[str, str]]) -> None:
        super().__init__(detail)
        self.errors = errors


def init_app(app: Flask) -> None:
    app.register_error_handler(HTTPException, on_http_exception)
    app.register_error_handler(OperationalError, on_database_down)
    app.register_error_handler(PoolTimeout, on_database_down)
    app.register_error_handler(TimeoutError, on_timeout)
    app.register_error_handler(Exception, on_exception)


def wants_problem() -> bool:
    return request.path.startswith("/api/")


def on_http_exception(exc: HTTPException) -> Any:
    db.session.rollback()  # nothing half-done may be committed by whoever uses the session next
    if exc.code is None or exc.code < 400 or exc.response is not None:
        return exc
    cause = getattr(exc, "original_exception", None)
    if isinstance(cause, OperationalError | PoolTimeout):
        # Flask wraps what is raised after the view returned, when the session is saved, in a 500.
        return on_database_down(cause)
    detail = FORM_OUTDATED if isinstance(exc, CSRFError) else exc.description or ""
    # Retry-After of a 429, Allow of a 405.
    kept = [(name, value) for name, value in exc.get_headers() if name not in ("Content-Type", "Content-Length")]
    if wants_problem():
        document = {"type": "about:blank", "title": HTTPStatus(exc.code).phrase, "status": exc.code, "detail": detail}
        if isinstance(exc, WrongValues):
            document["errors"] = exc.errors
        return document, exc.code, [*kept, ("Content-Type", PROBLEM_JSON)]
    return render_template("error.html", status=exc.code, title=exc.name, detail=detail), exc.code, kept


def on_database_down(exc: Exception) -> Any:
    logger.error("database unavailable", extra={"reason": first_line(exc), "path": request.path})
    answer = "The database did not answer. Please try again in a moment."
    return on_http_exception(ServiceUnavailable(answer, retry_after=RETRY_SECONDS))


def on_timeout(exc: TimeoutError) -> Any:
    """A wait was given up: its client has left, or there was no time left for it. No line of ours is to blame."""
    logger.warning("gave up waiting", extra={"reason": first_line(exc), "path": request.path})
    answer = "This took too long. Please try again in a moment."
    return on_http_exception(ServiceUnavailable(answer, retry_after=RETRY_SECONDS))


def on_exception(exc: Exception) -> Any:
    logger.exception("unhandled exception", extra={"path": request.path, "method": request.method})
    return on_http_exception(InternalServerError("Something went wrong on our side; it has been logged."))
