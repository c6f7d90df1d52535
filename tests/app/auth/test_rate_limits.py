import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import TooManyRequests

from app import create_app
from app.auth import views
from app.auth.rate_limits import Attempts, PostgresCounters, account_key, client_key
from app.extensions import db
from tests.app.forms import Browser


@pytest.fixture
def limit(app: Flask, monkeypatch: pytest.MonkeyPatch) -> int:
    """Three attempts in a window."""
    monkeypatch.setitem(app.extensions, "config", app.extensions["config"].model_copy(update={"SIGN_IN_LIMIT": 3}))
    return 3


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "check_password_hash", lambda _, password: password == "right")


@pytest.fixture
def counters(app: Flask) -> Iterator[PostgresCounters]:
    with app.app_context():
        yield PostgresCounters()


@pytest.mark.usefixtures("cheap_hashes")
def test_too_many_attempts_from_one_address_are_refused_with_the_time_to_wait(browser: Browser, limit: int) -> None:
    for number in range(limit):
        assert browser.sign_in(f"user{number}@example.org", "wrong").status_code == 422

    refused = browser.sign_in("another@example.org", "wrong")

    assert refused.status_code == 429
    assert 890 <= int(refused.headers["Retry-After"]) <= 900
    assert "try again in 15 minutes" in refused.text


@pytest.mark.usefixtures("cheap_hashes")
def test_too_many_attempts_at_one_account_are_refused_from_every_address(
    app: Flask, make_user: Callable[..., int], limit: int
) -> None:
    make_user("ann@example.org")

    def attempt(number: int, password: str) -> int:
        browser = Browser(app.test_client())
        browser.client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        return browser.sign_in("ANN@example.org", password).status_code

    assert [attempt(number, "wrong") for number in range(limit)] == [422] * limit
    assert attempt(99, "right") == 429


@pytest.mark.usefixtures("cheap_hashes")
def test_attempts_that_succeed_do_not_count(app: Flask, make_user: Callable[..., int], limit: int) -> None:
    make_user("ann@example.org")

    answers = [Browser(app.test_client()).sign_in("ann@example.org", "right").status_code for _ in range(2 * limit)]

    assert set(answers) == {302}


def test_asking_for_reset_links_is_limited_alike_for_accounts_that_exist_and_others(
    browser: Browser, mails: list[dict[str, str]], limit: int
) -> None:
    for _ in range(limit):
        browser.post("/reset-password", email="nobody@example.org")

    assert browser.post("/reset-password", email="nobody@example.org").status_code == 429


def test_signing_up_is_limited_by_address(browser: Browser, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "create_user", lambda *_: None)
    for _ in range(limit):
        browser.post("/sign-up", email="ann@example.org", password="long enough to pass")

    response = browser.post("/sign-up", email="ann@example.org", password="long enough to pass")

    assert response.status_code == 429


def test_a_page_says_so_and_not_a_stack_trace(browser: Browser, limit: int, mails: list[dict[str, str]]) -> None:
    for _ in range(limit):
        browser.post("/reset-password", email="ann@example.org")

    page = browser.post("/reset-password", email="ann@example.org")

    assert re.search(r"<h1>Too Many Requests</h1>", page.text)
    assert "Content-Security-Policy" in page.headers


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("192.0.2.1", "address-192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "address-2001:db8:1:2::"),
        ("2001:db8:1:2::99", "address-2001:db8:1:2::"),
        ("::ffff:192.0.2.1", "address-192.0.2.1"),
        ("fe80::1%eth0", "address-fe80::"),
        ("192.0.2.1:5678", "address-192.0.2.1"),
        ("[2001:db8:1:2::99]:80", "address-2001:db8:1:2::"),
        ("[::1]:80", "address-::"),
        ("[::ffff:192.0.2.1]:80", "address-192.0.2.1"),
    ],
)
def test_an_ipv6_customer_counts_as_one_address(app: Flask, peer: str, key: str) -> None:
    with app.test_request_context(environ_overrides={"REMOTE_ADDR": peer}):
        assert client_key() == key


@pytest.mark.parametrize("peer", ["", "not an address" * 50])
def test_a_peer_without_an_address_is_counted_all_the_same(app: Flask, peer: str) -> None:
    with app.test_request_context(environ_overrides={"REMOTE_ADDR": peer}):
        assert re.fullmatch(r"address-[0-9a-f]{64}", client_key())


def test_the_key_of_an_account_is_short_and_does_not_show_the_address() -> None:
    key = account_key("ann@example.org" * 1000)

    assert len(key) < 100
    assert "ann" not in key


def test_a_limit_holds_however_many_try_at_once(app: Flask) -> None:
    def attempt(_: int) -> bool:
        with app.app_context():
            try:
                Attempts("test", "the same key").use_one()
            except TooManyRequests:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        admitted = sum(pool.map(attempt, range(40)))

    assert admitted == app.extensions["config"].SIGN_IN_LIMIT


def test_a_window_that_is_over_starts_again(counters: PostgresCounters) -> None:
    counters.incr("k", 60, amount=5)
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE rate_limit_counters SET window_ends_at = now() - interval '1 second'"))

    assert counters.get("k") == 0
    assert counters.incr("k", 60) == 1
    assert 55 < counters.get_expiry("k") - time.time() < 61


def test_a_window_is_not_made_longer_by_more_attempts(counters: PostgresCounters) -> None:
    counters.incr("k", 60)
    first = counters.get_expiry("k")

    counters.incr("k", 60)

    assert counters.get_expiry("k") == first


def test_giving_back_never_goes_below_zero(counters: PostgresCounters) -> None:
    assert counters.incr("k", 60, amount=-1) == 0
    assert counters.incr("k", 60, amount=-1) == 0


def test_a_counter_can_be_cleared_and_all_can(counters: PostgresCounters) -> None:
    for key in "abc":
        counters.incr(key, 60)

    counters.clear("a")
    assert [counters.get(key) for key in "abc"] == [0, 1, 1]
    assert counters.reset() == 2
    assert counters.check()


def test_a_store_that_is_down_is_an_error_and_no_way_round_the_limit(
    instance_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = create_app(
        {
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            "DB_CONNECT_TIMEOUT_SECONDS": "1",
            "INSTANCE_PATH": str(instance_path),
        }
    )

    with unreachable.app_context(), pytest.raises(OperationalError):
        Attempts("sign-in", "any key").use_one()
