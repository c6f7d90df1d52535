import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from app.auth import tokens
from app.extensions import db
from app.models import ApiToken, User
from tests.app.forms import Browser
from tests.app.tokens import token_of


@pytest.fixture
def ann(browser: Browser, make_user: Callable[..., int]) -> Browser:
    browser.begin_as(make_user("ann@example.org"))
    return browser


def shown_token(response: Any) -> str | None:
    match = re.search(r"gr_[\w-]{43}", response.text)
    return match and match[0]


def test_tokens_are_for_members(browser: Browser) -> None:
    assert browser.get("/tokens").location == "/sign-in?next=/tokens"


def test_a_new_token_is_shown_once_and_belongs_to_its_maker(app: Flask, ann: Browser) -> None:
    created = ann.post("/tokens", name="laptop")
    text = shown_token(created)

    with app.app_context():
        assert token_of(text).user.email == "ann@example.org"
    listed = ann.get("/tokens")
    assert "laptop" in listed.text
    assert shown_token(listed) is None


def test_the_list_shows_when_a_token_was_used(app: Flask, ann: Browser) -> None:
    text = shown_token(ann.post("/tokens", name="laptop"))
    assert "never used" in ann.get("/tokens").text

    with app.app_context():
        token = token_of(text)
        token.last_used_at = token.created_at.replace(year=2026, month=3, day=4, hour=5, minute=6)
        db.session.commit()

    assert "4 March 2026, 05:06 UTC" in ann.get("/tokens").text


def test_a_revoked_token_is_gone(app: Flask, ann: Browser) -> None:
    text = shown_token(ann.post("/tokens", name="laptop"))
    with app.app_context():
        token_id = token_of(text).id

    assert ann.post(f"/tokens/{token_id}/revoke", page="/tokens").status_code == 302
    with app.app_context():
        assert token_of(text) is None


def test_nobody_revokes_somebody_elses_token(app: Flask, ann: Browser, make_user: Callable[..., int]) -> None:
    bob_id = make_user("bob@example.org")
    with app.app_context():
        token, text = ApiToken.issue(db.session.get(User, bob_id), "bob's")
        db.session.commit()
        token_id = token.id

    assert "bob's" not in ann.get("/tokens").text
    assert ann.post(f"/tokens/{token_id}/revoke", page="/tokens").status_code == 404
    with app.app_context():
        assert token_of(text) is not None


@pytest.mark.parametrize("token_id", ["0", "2147483647", "2147483648", "9" * 40, "x", "-1"])
def test_an_id_that_no_token_has_is_not_found(ann: Browser, token_id: str) -> None:
    assert ann.post(f"/tokens/{token_id}/revoke", page="/tokens").status_code == 404


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("", "give the token a name"), ("   ", "give the token a name"), ("x" * 81, "80"), ("a\x00b", "control")],
)
def test_a_token_needs_a_name_that_can_be_stored(
    ann: Browser, count: Callable[[str], int], name: str, complaint: str
) -> None:
    response = ann.post("/tokens", name=name)

    assert response.status_code == 422
    assert complaint in response.text
    assert count("api_tokens") == 0


def test_a_user_has_a_limited_number_of_tokens(
    ann: Browser, count: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "TOKENS_PER_USER", 2)
    for name in "ab":
        ann.post("/tokens", name=name)

    response = ann.post("/tokens", name="c")

    assert response.status_code == 422
    assert "revoke one first" in response.text
    assert count("api_tokens") == 2


def test_the_name_of_a_token_is_text_and_not_markup(ann: Browser) -> None:
    response = ann.post("/tokens", name="<script>alert(1)</script>")

    assert "<script>alert" not in response.text
    assert "&lt;script&gt;alert" in response.text
