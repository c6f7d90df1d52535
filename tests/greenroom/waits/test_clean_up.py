"""What a Flask application does when a request is over goes on when its budget is spent, whoever asked for it."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import flask
import pytest
from flask.signals import appcontext_tearing_down, request_tearing_down
from werkzeug.wsgi import ClosingIterator

from greenroom.deadline import SHIELD
from greenroom.record import BARE, CLEAN_UP, CURRENT, Record
from greenroom.waits.primitives.clean_up import shield_flask, shield_werkzeug


@pytest.fixture
def app() -> flask.Flask:
    """Of a class of its own: what is shielded is the class."""

    class Shielded(flask.Flask):
        do_teardown_request = flask.Flask.do_teardown_request
        do_teardown_appcontext = flask.Flask.do_teardown_appcontext

    shield_flask(
        SimpleNamespace(  # type: ignore[arg-type]
            Flask=Shielded,
            request_tearing_down=request_tearing_down,
            appcontext_tearing_down=appcontext_tearing_down,
        )
    )
    application = Shielded(__name__)
    application.add_url_rule("/", view_func=lambda: str(SHIELD.get()))
    return application


@pytest.fixture
def _in_a_request() -> Iterator[None]:
    token = CURRENT.set(Record(0.0))
    yield
    CURRENT.reset(token)


@pytest.mark.usefixtures("_in_a_request")
@pytest.mark.parametrize("name", ["teardown_request", "teardown_appcontext"])
def test_functions_that_tear_down_are_shielded(app: flask.Flask, name: str) -> None:
    seen: list[int] = []
    getattr(app, name)(lambda exc: seen.append(SHIELD.get()))

    assert app.test_client().get("/").text == str(BARE)
    assert seen == [CLEAN_UP]


@pytest.mark.usefixtures("_in_a_request")
@pytest.mark.parametrize("signal", [request_tearing_down, appcontext_tearing_down], ids=lambda signal: signal.name)
def test_who_is_told_of_the_teardown_is_shielded(app: flask.Flask, signal: Any) -> None:
    seen: list[int] = []
    with signal.connected_to(lambda sender, **_: seen.append(SHIELD.get()), app):
        app.test_client().get("/")

    assert seen == [CLEAN_UP]


@pytest.mark.usefixtures("_in_a_request")
def test_a_shield_ends_with_the_teardown(app: flask.Flask) -> None:
    app.teardown_request(lambda exc: None)

    assert [app.test_client().get("/").text for _ in range(2)] == [str(BARE)] * 2
    assert SHIELD.get() == BARE


@pytest.mark.usefixtures("_in_a_request")
def test_what_closes_an_answer_is_shielded() -> None:
    seen: list[int] = []

    class Shielded(ClosingIterator):
        close = ClosingIterator.close

    shield_werkzeug(SimpleNamespace(ClosingIterator=Shielded))  # type: ignore[arg-type]
    Shielded([b"x"], [lambda: seen.append(SHIELD.get())]).close()

    assert seen == [CLEAN_UP]
    assert SHIELD.get() == BARE
