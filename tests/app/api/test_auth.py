from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update

from app.extensions import db
from app.models import ApiToken, User, utc_now

Headers = dict[str, str]
BOARD = {"slug": "mine", "title": "Mine", "sources": [{"name": "one", "url": "http://one.example/"}]}


def last_used_at(app: Flask) -> Any:
    with app.app_context(), db.engine.connect() as connection:
        return connection.scalar(select(ApiToken.last_used_at))


def set_last_used_at(app: Flask, moment: Any) -> None:
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(update(ApiToken).values(last_used_at=moment))


@pytest.fixture
def signed_in(app: Flask, make_user: Callable[..., int]) -> Callable[[str], FlaskClient]:
    """`signed_in("ann@example.org")`: a client with a browser session."""

    def make(email: str) -> FlaskClient:
        user_id = make_user(email)
        with app.app_context():
            session_user = db.session.get(User, user_id).get_id()
        browser = app.test_client()
        with browser.session_transaction() as session:
            session["_user_id"] = session_user
            session["_fresh"] = True
        return browser

    return make


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer ", "Bearer", "bearer gr_\xff", "BEARER a b c"])
@pytest.mark.parametrize("path", ["/api/boards", "/api/boards/public", "/api/boards/public/stream"])
def test_wrong_token_is_refused_also_where_none_is_needed(
    client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any], header: str, path: str
) -> None:
    make_board(bearer(), "public", public=True)

    response = client.get(path, headers={"Authorization": header})

    assert response.status_code == 401
    assert response.mimetype == "application/problem+json"
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    assert "invalid_token" in response.headers["WWW-Authenticate"]


def test_token_of_a_deleted_user_is_refused(app: Flask, client: FlaskClient, bearer: Callable[..., Headers]) -> None:
    headers = bearer()
    with app.app_context():
        db.session.delete(db.session.scalar(select(User)))
        db.session.commit()

    assert client.get("/api/boards", headers=headers).status_code == 401


def test_other_authorization_schemes_are_left_to_the_proxy_that_asked_for_them(client: FlaskClient) -> None:
    assert client.get("/api/boards", headers={"Authorization": "Basic dXNlcjpwYXNz"}).status_code == 200
    assert client.post("/api/boards", json=BOARD, headers={"Authorization": "Basic dXNlcjpwYXNz"}).status_code == 401


def test_use_of_a_token_is_noted_at_most_once_a_minute(
    app: Flask, client: FlaskClient, bearer: Callable[..., Headers]
) -> None:
    headers = bearer()
    client.get("/api/boards", headers=headers)
    first = last_used_at(app)

    client.get("/api/boards", headers=headers)
    again = last_used_at(app)
    set_last_used_at(app, utc_now() - timedelta(seconds=61))
    client.get("/api/boards", headers=headers)
    later = last_used_at(app)

    assert first is not None
    assert again == first
    assert later > first


def test_use_of_a_token_is_noted_though_the_view_fails(
    app: Flask, client: FlaskClient, bearer: Callable[..., Headers]
) -> None:
    headers = bearer()

    assert client.post("/api/boards", json={}, headers=headers).status_code == 422

    assert last_used_at(app) is not None


def test_bearer_call_neither_needs_nor_starts_a_session(client: FlaskClient, bearer: Callable[..., Headers]) -> None:
    response = client.post("/api/boards", json=BOARD, headers=bearer())

    assert response.status_code == 201
    assert "Set-Cookie" not in response.headers


def test_session_reads_its_own_boards(
    client: FlaskClient, bearer: Callable[..., Headers], signed_in: Callable[[str], FlaskClient]
) -> None:
    browser = signed_in("ann@example.org")

    assert browser.get("/api/boards").status_code == 200


def test_session_without_csrf_token_changes_nothing(
    signed_in: Callable[[str], FlaskClient], count: Callable[[str], int]
) -> None:
    browser = signed_in("ann@example.org")

    response = browser.post("/api/boards", json=BOARD)

    assert response.status_code == 400
    assert response.mimetype == "application/problem+json"
    assert count("boards") == 0


def test_session_with_csrf_token_changes_what_is_its_own(
    app: Flask, signed_in: Callable[[str], FlaskClient], csrf_token: Callable[[FlaskClient], str]
) -> None:
    browser = signed_in("ann@example.org")
    headers = {"X-CSRFToken": csrf_token(browser)}

    assert browser.post("/api/boards", json=BOARD, headers=headers).status_code == 201
    assert browser.delete("/api/boards/mine").status_code == 400
    assert browser.delete("/api/boards/mine", headers=headers).status_code == 204


@pytest.fixture
def csrf_token(app: Flask) -> Callable[[FlaskClient], str]:
    from flask import session as flask_session
    from flask_wtf.csrf import generate_csrf

    def make(browser: FlaskClient) -> str:
        with app.test_request_context():
            token = generate_csrf()
            raw = flask_session["csrf_token"]
        with browser.session_transaction() as session:
            session["csrf_token"] = raw
        return token

    return make


def test_token_wins_over_a_session(
    bearer: Callable[..., Headers], signed_in: Callable[[str], FlaskClient], client: FlaskClient
) -> None:
    bob = bearer("bob@example.org")
    browser = signed_in("ann@example.org")

    assert browser.post("/api/boards", json=BOARD, headers=bob).status_code == 201

    assert browser.get("/api/boards/mine").status_code == 404  # it is bob's and not ann's
    assert client.get("/api/boards/mine", headers=bob).status_code == 200


def test_wrong_token_is_refused_though_there_is_a_session(signed_in: Callable[[str], FlaskClient]) -> None:
    response = signed_in("ann@example.org").get("/api/boards", headers={"Authorization": "Bearer wrong"})

    assert response.status_code == 401


def test_token_opens_no_page(app: Flask, client: FlaskClient, bearer: Callable[..., Headers]) -> None:
    from flask_login import current_user

    with app.test_request_context("/", headers=bearer()):
        assert not current_user.is_authenticated
