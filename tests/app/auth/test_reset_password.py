import re
from collections.abc import Callable

import pytest
from flask import Flask
from itsdangerous import TimestampSigner

from app.auth import reset_links
from app.extensions import db
from app.models import User
from tests.app.forms import Browser

NEW_PASSWORD = "a quite different password"


@pytest.fixture
def link(browser: Browser, make_user: Callable[..., int], mails: list[dict[str, str]]) -> str:
    """The path of a reset link that was mailed to ann@example.org."""
    make_user("ann@example.org")
    return ask_for_link(browser, mails)


def ask_for_link(browser: Browser, mails: list[dict[str, str]]) -> str:
    browser.post("/reset-password", email="ann@example.org")
    return re.search(r"http://127\.0\.0\.1:8000(/reset-password/\S+)", mails[-1]["text"])[1]


def test_the_mail_is_a_job_with_plain_values_and_a_link(
    browser: Browser, make_user: Callable[..., int], mails: list[dict[str, str]]
) -> None:
    make_user("ann@example.org")

    response = browser.post("/reset-password", email="Ann@example.org")

    assert response.status_code == 200
    [mail] = mails
    assert mail["job"] == "send_mail"
    assert mail["to"] == "ann@example.org"
    assert all(type(value) is str for value in mail.values())


def test_the_link_starts_with_the_public_url_whatever_host_was_asked(
    browser: Browser, make_user: Callable[..., int], mails: list[dict[str, str]]
) -> None:
    make_user("ann@example.org")
    page = browser.get("/reset-password", headers={"Host": "evil.example"})
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)[1]

    browser.client.post(
        "/reset-password",
        data={"csrf_token": token, "email": "ann@example.org"},
        headers={"Host": "evil.example", "Cookie": page.headers["Set-Cookie"].split(";")[0]},
    )

    assert "http://127.0.0.1:8000/reset-password/" in mails[0]["text"]
    assert "evil" not in mails[0]["text"]


def test_the_answer_tells_nothing_about_whether_the_account_exists(
    browser: Browser, make_user: Callable[..., int], mails: list[dict[str, str]]
) -> None:
    make_user("ann@example.org")

    known = browser.post("/reset-password", email="ann@example.org")
    unknown = browser.post("/reset-password", email="nobody@example.org")

    assert len(mails) == 1
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text)


def test_the_link_changes_the_password(browser: Browser, link: str) -> None:
    response = browser.post(link, password=NEW_PASSWORD)

    assert response.location == "/sign-in"
    assert browser.sign_in(password=NEW_PASSWORD).status_code == 302


def test_the_old_password_is_over_after_a_reset(browser: Browser, link: str) -> None:
    browser.post(link, password=NEW_PASSWORD)

    assert browser.sign_in().status_code == 422


def test_a_link_works_once(browser: Browser, link: str) -> None:
    browser.post(link, password=NEW_PASSWORD)

    assert browser.get(link).status_code == 410
    assert "This link is over" in browser.get(link).text


def test_a_changed_password_ends_all_links_that_are_out(
    browser: Browser, link: str, mails: list[dict[str, str]]
) -> None:
    second = ask_for_link(browser, mails)

    browser.post(second, password=NEW_PASSWORD)

    assert browser.get(link).status_code == 410


def test_a_reset_ends_all_sessions_of_the_user(
    browser: Browser, other_browser: Browser, mails: list[dict[str, str]], make_user: Callable[..., int]
) -> None:
    other_browser.begin_as(make_user("ann@example.org"))
    assert other_browser.is_signed_in()
    link = ask_for_link(browser, mails)

    browser.post(link, password=NEW_PASSWORD)

    assert not other_browser.is_signed_in()


def test_two_uses_at_the_same_moment_change_the_password_once(app: Flask, link: str) -> None:
    token = link.rpartition("/")[2]
    with app.app_context():
        first = reset_links.user_of(token, lock=True)
        with db.engine.connect() as connection:
            connection.exec_driver_sql("SET lock_timeout = 50")
            with pytest.raises(Exception, match="lock timeout"):
                connection.exec_driver_sql(f"SELECT id FROM users WHERE id = {first.id} FOR UPDATE")
        first.set_password(NEW_PASSWORD)
        db.session.commit()

        assert reset_links.user_of(token, lock=True) is None


def test_a_link_is_over_after_an_hour(browser: Browser, link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = TimestampSigner.get_timestamp
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: now(self) + 3602)

    assert browser.get(link).status_code == 410


@pytest.mark.parametrize("token", ["x", "a.b.c", "%00", "ü", "e30.aaaaaa.bbbb"])
def test_a_forged_link_is_answered_kindly(browser: Browser, token: str) -> None:
    assert browser.get(f"/reset-password/{token}").status_code == 410


def test_a_link_signed_for_something_else_does_not_work(app: Flask, browser: Browser, link: str) -> None:
    with app.test_request_context():
        from flask_wtf.csrf import generate_csrf

        other = generate_csrf()

    assert browser.get(f"/reset-password/{other}").status_code == 410


def test_a_new_password_that_is_too_short_changes_nothing(app: Flask, browser: Browser, link: str) -> None:
    with app.app_context():
        before = User.by_email("ann@example.org").password_hash

    response = browser.post(link, password="short")

    assert response.status_code == 422
    with app.app_context():
        assert User.by_email("ann@example.org").password_hash == before
