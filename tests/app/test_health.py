import socket

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import create_app, database
from app.extensions import db


def test_healthz_answers_without_touching_the_database(client: FlaskClient) -> None:
    response = client.get("/healthz")

    assert response.status_code == 200
    assert response.json == {"status": "ok"}


def test_readyz_is_ready_when_the_database_answers(client: FlaskClient) -> None:
    assert client.get("/readyz").json == {"status": "ready"}


def test_readyz_says_draining_when_the_server_drains(client: FlaskClient) -> None:
    response = client.get("/readyz", environ_overrides={"greenroom.draining": True})

    assert response.status_code == 503


def test_readyz_needs_no_connection_of_the_pool(postgres_url: str) -> None:
    app = create_app({"DATABASE_URL": postgres_url, "DB_POOL_SIZE": "1", "DB_POOL_OVERFLOW": "0"})

    with app.app_context(), db.engine.connect() as taken:
        taken.execute(text("SELECT 1"))

        assert app.test_client().get("/readyz").json == {"status": "ready"}


@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "never answers"])
def test_readyz_says_soon_that_the_database_is_not_there(is_silent: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if is_silent:
            listener.listen()
        port = listener.getsockname()[1]
        app = create_app(
            {"DATABASE_URL": f"postgresql://nobody@127.0.0.1:{port}/none", "DB_CONNECT_TIMEOUT_SECONDS": "2"}
        )

        answer = app.test_client().get("/readyz")

    assert (answer.status_code, answer.json) == (503, {"status": "database unavailable"})


@pytest.mark.parametrize(
    ("message", "is_reachable"),
    [
        ("FATAL:  sorry, too many clients already", True),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", True),
        ("FATAL:  the database system is starting up", False),
    ],
)
def test_a_full_database_serves_those_who_are_connected(
    app: Flask, monkeypatch: pytest.MonkeyPatch, message: str, is_reachable: bool
) -> None:
    class Refusing:
        def connect(self) -> None:
            raise OperationalError("", {}, Exception(message))

    monkeypatch.setitem(app.extensions, "database_probe", Refusing())

    assert database.is_reachable(app) is is_reachable
