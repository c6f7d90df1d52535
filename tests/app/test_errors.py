"""Exceptions in a view: an answer that says what to do, and a line in the log that helps."""

import logging

import pytest
from flask import Flask

from app import create_app


@pytest.fixture
def app(postgres_url: str) -> Flask:
    """Of its own: routes can't be added to one that has served."""
    return create_app({"DATABASE_URL": postgres_url})


def test_wait_that_was_given_up_is_no_fault_of_the_code(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    def waits() -> None:
        raise TimeoutError("the client has left")

    app.add_url_rule("/api/waits", view_func=waits)

    with caplog.at_level(logging.WARNING):
        answer = app.test_client().get("/api/waits")

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.content_type == "application/problem+json"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.exc_info is None


def test_any_other_exception_is_logged_with_its_traceback(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise RuntimeError("secret detail")

    app.add_url_rule("/api/fails", view_func=fails)

    answer = app.test_client().get("/api/fails")

    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text
    assert caplog.records[-1].exc_info is not None
