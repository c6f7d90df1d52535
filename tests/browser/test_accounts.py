"""Accounts as people use them, one of them with nothing but a keyboard."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from .conftest import DESKTOP, PHONE

Visit = Callable[..., Page]
PASSWORD = "a long enough password"
NEW_PASSWORD = "another long password"


def sign_up(page: Page, email: str) -> None:
    page.goto("/sign-up")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    page.get_by_role("button", name="Sign out").wait_for()


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("You are signed out.").wait_for()


@pytest.mark.parametrize("has_javascript", [True, False])
def test_a_forgotten_password_is_reset_by_the_mailed_link(
    visit: Visit, new_email: Callable[[], str], mailed_link: Callable[[str], str], has_javascript: bool
) -> None:
    email = new_email()
    page = visit(viewport=PHONE, java_script_enabled=has_javascript)
    elsewhere = visit()
    sign_up(page, email)
    sign_out(page)
    elsewhere.goto("/sign-in")
    elsewhere.get_by_label("E-mail address").fill(email)
    elsewhere.get_by_label("Password").fill(PASSWORD)
    elsewhere.get_by_role("button", name="Sign in").click()
    elsewhere.get_by_role("button", name="Sign out").wait_for()

    page.goto("/sign-in")
    page.get_by_role("link", name="Forgot the password?").click()
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("button", name="Send the link").click()
    expect(page.get_by_role("heading", name="Check your mail")).to_be_visible()
    link = mailed_link(email)
    page.goto(link)
    page.get_by_label("Password", exact=True).fill(NEW_PASSWORD)
    page.get_by_role("button", name="Save the password").click()

    expect(page.get_by_text("Your password is changed")).to_be_visible()
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    elsewhere.reload()
    expect(elsewhere.get_by_role("link", name="Sign in")).to_be_visible()
    page.goto(link)
    expect(page.get_by_role("heading", name="This link is over")).to_be_visible()


def test_a_token_is_shown_once_works_and_can_be_revoked(
    visit: Visit, server_url: str, new_email: Callable[[], str]
) -> None:
    page = visit(viewport=DESKTOP)
    sign_up(page, new_email())

    def status(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return requests.get(f"{server_url}/api/boards", headers=headers, timeout=10).status_code

    page.get_by_role("link", name="API tokens").click()
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Create").click()
    token = page.locator("#token-text").inner_text()
    assert re.fullmatch(r"gr_[\w-]{43}", token)
    assert status(token) == 200

    page.get_by_role("link", name="API tokens").click()
    expect(page.get_by_text("laptop", exact=True)).to_be_visible()
    expect(page.get_by_text("last used")).to_be_visible()
    expect(page.get_by_text(token)).to_have_count(0)
    page.get_by_role("button", name="Revoke the token laptop").click()
    expect(page.get_by_text("The token is revoked")).to_be_visible()

    assert status(token) == 401


def test_a_new_token_is_copied_with_one_click(visit: Visit, new_email: Callable[[], str]) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    sign_up(page, new_email())
    page.goto("/tokens")
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Create").click()

    page.get_by_role("button", name="Copy").click()

    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#token-text").inner_text()


def test_signing_in_needs_no_mouse(visit: Visit, new_email: Callable[[], str]) -> None:
    email = new_email()
    page = visit()
    sign_up(page, email)
    sign_out(page)

    page.goto("/tokens")  # leads to the sign-in form, and back after it
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("E-mail address")).to_be_focused()
    assert has_focus_ring(page)
    page.keyboard.type(email)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Sign in")).to_be_focused()
    assert has_focus_ring(page)
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="API tokens")).to_be_visible()


def has_focus_ring(page: Page) -> Any:
    return page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2")


def test_a_wrong_password_is_told_to_screen_readers_too(visit: Visit, new_email: Callable[[], str]) -> None:
    page = visit()
    page.goto("/sign-in")
    page.get_by_label("E-mail address").fill(new_email())
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()

    password = page.get_by_label("Password")
    expect(password).to_have_attribute("aria-invalid", "true")
    expect(password).to_have_accessible_description("The address or the password is wrong.")


def test_no_script_can_read_the_session_cookie(visit: Visit, new_email: Callable[[], str]) -> None:
    page = visit()
    sign_up(page, new_email())

    assert page.evaluate("document.cookie") == ""
    [cookie] = page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("session", True, "Lax")
