from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app.auth import views
from app.auth.identity import local_path
from app.extensions import db
from app.models import User
from tests.app.forms import Browser
from tests.support import PASSWORD


def test_sign_up_makes_an_account_and_signs_in(browser: Browser, count: Callable[[str], int]) -> None:
    response = browser.post("/sign-up", email="Ann@Example.org ", password=PASSWORD)

    assert response.status_code == 302
    assert browser.is_signed_in()
    assert count("users") == 1


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"email": "ann", "password": PASSWORD}, "does not look like an e-mail address"),
        ({"email": "", "password": PASSWORD}, "Please enter your e-mail address"),
        ({"email": "a" * 250 + "@example.org", "password": PASSWORD}, "at most 254"),
        ({"email": "ann\x00@example.org", "password": PASSWORD}, "control characters"),
        ({"email": "ann@example.org", "password": "too short"}, "10 to 200 characters"),
        ({"email": "ann@example.org", "password": "x" * 201}, "10 to 200 characters"),
        ({"email": "ann@example.org", "password": "with a \x00 in it"}, "control characters"),
        ({"email": "ann@example.org"}, "Please choose a password"),
    ],
)
def test_sign_up_says_what_is_wrong_and_makes_no_account(
    browser: Browser, count: Callable[[str], int], fields: dict[str, str], complaint: str
) -> None:
    response = browser.post("/sign-up", **fields)

    assert response.status_code == 422
    assert complaint in response.text
    assert count("users") == 0


def test_an_address_has_one_account_whatever_its_case(
    browser: Browser, make_user: Callable[..., int], count: Callable[[str], int]
) -> None:
    make_user("ann@example.org")

    response = browser.post("/sign-up", email="ANN@example.org", password=PASSWORD)

    assert response.status_code == 422
    assert "already has an account" in response.text
    assert count("users") == 1


def test_two_sign_ups_at_the_same_moment_make_one_account(
    app: Flask, make_user: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user("ann@example.org")
    monkeypatch.setattr(User, "by_email", lambda email: None)  # neither request sees the other's account yet

    with app.test_request_context():
        assert views.create_user("ann@example.org", PASSWORD) is None
        assert db.session.scalar(text("SELECT 1")) == 1  # the session can still be used


def test_sign_in_is_not_strict_about_case_and_blanks_of_the_address(
    browser: Browser, make_user: Callable[..., int]
) -> None:
    make_user("ann@example.org")

    assert browser.sign_in(" Ann@Example.ORG ").status_code == 302
    assert browser.is_signed_in()


@pytest.mark.parametrize("email", ["ann@example.org", "nobody@example.org"])
def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(
    browser: Browser, make_user: Callable[..., int], email: str
) -> None:
    make_user("ann@example.org")

    response = browser.sign_in(email, "not the password")

    assert response.status_code == 422
    assert "The address or the password is wrong." in response.text
    assert not browser.is_signed_in()


def test_an_unknown_address_costs_a_password_hash_too(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(views, "check_password_hash", lambda *args: compared.append(args) or False)

    browser.sign_in("nobody@example.org", "anything at all")

    [(hash_, password)] = compared
    assert hash_.startswith("scrypt:")
    assert password == "anything at all"


@pytest.mark.parametrize("field", ["email", "password"])
def test_nul_bytes_in_sign_in_are_refused(browser: Browser, field: str) -> None:
    fields = {"email": "ann@example.org", "password": PASSWORD} | {field: "a\x00b"}

    assert browser.post("/sign-in", **fields).status_code == 422


def test_no_connection_is_held_while_the_password_is_hashed(
    app: Flask, browser: Browser, make_user: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user()
    held = []
    monkeypatch.setattr(views, "check_password_hash", lambda *_: held.append(db.engine.pool.checkedout()) or True)

    browser.sign_in()

    assert held == [0]


def test_sign_out_is_a_post_with_a_token(browser: Browser, make_user: Callable[..., int]) -> None:
    browser.begin_as(make_user())

    assert browser.get("/sign-out").status_code == 405
    assert browser.client.post("/sign-out").status_code == 400
    assert browser.is_signed_in()
    assert browser.post("/sign-out", page="/tokens").status_code == 302
    assert not browser.is_signed_in()


@pytest.mark.parametrize("path", ["/sign-in", "/sign-up", "/reset-password"])
def test_a_form_without_its_token_is_refused(client: FlaskClient, path: str) -> None:
    response = client.post(path, data={"email": "ann@example.org", "password": PASSWORD})

    assert response.status_code == 400
    assert "This form is out of date" in response.text


def test_the_session_id_changes_at_sign_in_and_at_sign_out(
    browser: Browser, make_user: Callable[..., int], count: Callable[[str], int]
) -> None:
    make_user()
    browser.get("/sign-in")
    before = browser.session_id()
    browser.sign_in()
    signed_in = browser.session_id()
    browser.post("/sign-out", page="/tokens")
    after = browser.session_id()

    assert len({before, signed_in, after}) == 3
    assert count("sessions") == 1  # the old ones are gone, not just forgotten


def test_a_session_id_from_before_sign_in_is_worth_nothing(
    browser: Browser, other_browser: Browser, make_user: Callable[..., int]
) -> None:
    make_user()
    other_browser.get("/sign-in")
    planted = other_browser.session_id()
    browser.client.set_cookie("session", planted)

    browser.sign_in()

    assert browser.is_signed_in()
    assert not other_browser.is_signed_in()


def test_a_page_for_members_sends_to_sign_in_and_back(browser: Browser, make_user: Callable[..., int]) -> None:
    make_user()

    sent = browser.get("/tokens?a=1&b=2")
    arrived = browser.post(sent.location, email="ann@example.org", password=PASSWORD)

    assert sent.status_code == 302
    assert sent.location == "/sign-in?next=/tokens?a%3D1%26b%3D2"
    assert arrived.location == "/tokens?a=1&b=2"


def test_a_user_who_is_signed_in_needs_no_sign_in_form(browser: Browser, make_user: Callable[..., int]) -> None:
    browser.begin_as(make_user())

    assert browser.get("/sign-in?next=/tokens").location == "/tokens"
    assert browser.get("/sign-up").location == "/"


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "http://evil.example/",
        "https:evil.example",
        "javascript:alert(1)",
        "evil.example",
        " //evil.example",
        "/path\\..\\x",
        "",
        None,
    ],
)
def test_next_leads_nowhere_else(target: str | None) -> None:
    assert local_path(target, "/home") == "/home"


@pytest.mark.parametrize("target", ["/", "/boards/x?fetch=now", "/boards/ü#here", "/a//b"])
def test_next_leads_to_local_paths(target: str) -> None:
    assert local_path(target, "/home") == target


def test_sign_in_does_not_redirect_to_another_server(browser: Browser, make_user: Callable[..., int]) -> None:
    make_user()

    response = browser.post("/sign-in?next=//evil.example", email="ann@example.org", password=PASSWORD)

    assert response.location == "/"


def test_a_changed_password_ends_every_session(
    app: Flask, browser: Browser, other_browser: Browser, make_user: Callable[..., int]
) -> None:
    user_id = make_user()
    browser.begin_as(user_id)
    other_browser.begin_as(user_id)
    assert browser.is_signed_in()

    with app.app_context():
        db.session.get(User, user_id).set_password("an entirely new one")
        db.session.commit()

    assert not browser.is_signed_in()
    assert not other_browser.is_signed_in()


def test_a_deleted_user_is_signed_out(app: Flask, browser: Browser, make_user: Callable[..., int]) -> None:
    user_id = make_user()
    browser.begin_as(user_id)
    assert browser.is_signed_in()

    with app.app_context():
        db.session.delete(db.session.get(User, user_id))
        db.session.commit()

    assert not browser.is_signed_in()


@pytest.mark.parametrize(
    "stored", ["", "1", "abc", "1.0", "99999999999999999999.aa", "1." + "0" * 32, "-1." + "0" * 32]
)
def test_a_session_that_names_no_user_signs_nobody_in(
    browser: Browser, make_user: Callable[..., int], stored: str
) -> None:
    make_user()
    with browser.client.session_transaction() as session:
        session["_user_id"] = stored

    assert not browser.is_signed_in()


def test_pages_of_accounts_are_kept_in_no_cache(browser: Browser) -> None:
    assert browser.get("/sign-in").headers["Cache-Control"] == "no-store"


def test_nothing_but_an_id_and_its_attributes_is_in_the_cookie(browser: Browser, make_user: Callable[..., int]) -> None:
    make_user()

    header = browser.sign_in().headers["Set-Cookie"]

    value, *attributes = header.split("; ")
    assert len(value) == len("session=") + 43  # 32 random bytes
    assert "HttpOnly" in attributes
    assert "SameSite=Lax" in attributes
    [expires] = [part.removeprefix("Expires=") for part in attributes if part.startswith("Expires=")]
    days = (datetime.strptime(expires, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC) - datetime.now(UTC)).days
    assert days == 13  # and some hours: 14 in all
