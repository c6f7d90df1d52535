import pytest
from flask import Flask

from app import jobs
from tests.app.forms import Browser


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app.test_client())


@pytest.fixture
def other_browser(app: Flask) -> Browser:
    return Browser(app.test_client())


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The jobs that were queued, instead of queueing them."""
    queued: list[dict[str, str]] = []

    def enqueue(name: str, **values: str) -> None:
        queued.append({"job": name, **values})

    monkeypatch.setattr(jobs, "enqueue", enqueue, raising=False)
    return queued
