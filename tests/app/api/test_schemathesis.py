"""The API against its own description, with generated input.

Over a socket: the engine of Schemathesis 4.32.5 hands its WSGI transport a setting that it does not know."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from app.extensions import db
from app.lanes import Lanes, SourceError
from app.models import Board, Source, User
from app.upstream import Fetcher

# It drives a server and takes its time: not one of the quick tests.
pytestmark = pytest.mark.live
# A long run by hand: SCHEMATHESIS_EXAMPLES=500 pytest tests/app/api/test_schemathesis.py
IS_LONG = "SCHEMATHESIS_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "15"))


@pytest.fixture
def api(app: Flask, bearer: Callable[..., dict[str, str]], served: tuple[str, int]) -> Iterator[Any]:
    """The description, and an application with a board of the example's name that fetches nothing real."""
    import schemathesis  # here and below: the quick tests are collected without it

    headers = bearer()
    with app.app_context():
        owner = db.session.query(User).one()
        source = Source(position=0, name="weather", url="http://weather.example/", timeout_ms=50)
        db.session.add(Board(slug="city-life", title="City life", owner=owner, sources=[source]))
        db.session.commit()
    config = schemathesis.Config.from_dict(
        {
            "headers": headers,
            # Unique names and what makes a host can't be said in JSON Schema: some bodies that fit it are refused.
            "checks": {"positive_data_acceptance": {"enabled": False}},
            "phases": {"stateful": {"enabled": IS_LONG}},
            "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
        }
    )
    real, app.extensions["fetcher"] = app.extensions["fetcher"], unconnected()
    host, port = served
    yield schemathesis.openapi.from_url(f"http://{host}:{port}/api/openapi.json", config=config)
    app.extensions["fetcher"] = real


class NoLanes(Lanes):
    def answer(self, url: str, caller: Any) -> Any:
        raise SourceError("no network in this test")


def unconnected() -> Fetcher:
    fetcher = Fetcher(allow_private=False, response_bytes=1024, redirects=0, budget_ms=100)
    fetcher.lanes = NoLanes(allow_private=False)
    return fetcher


def test_generated_input_finds_nothing_but_documented_answers(api: Any) -> None:
    """Examples, boundary values, random values, and chains of calls, each good and bad."""
    from schemathesis.engine import from_schema
    from schemathesis.engine.events import NonFatalError, ScenarioFinished

    problems: list[str] = []
    calls = 0
    for event in from_schema(api).execute():
        if isinstance(event, NonFatalError):
            problems.append(str(event.info))
        if isinstance(event, ScenarioFinished):
            calls += len(event.recorder.interactions)
            problems += failures(event)

    assert problems == []
    assert calls > 100


def failures(event: Any) -> list[str]:
    return [
        f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
        for checks in event.recorder.checks.values()
        for check in checks
        if check.failure_info is not None
    ]
