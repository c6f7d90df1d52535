"""Exceptions that ended requests: class, redacted message, the application's line, how many; bounded."""

from pathlib import Path
from typing import Any

import flask
import pytest
from flask.signals import got_request_exception

from greenroom.in_flight import CURRENT
from greenroom.insight import failures as module
from greenroom.insight.account import Account
from greenroom.insight.failures import Failures, class_name, message_of, place_of, root_of
from greenroom.redaction import message


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as exc:
        return exc


def account(route: str = "/price") -> Account:
    one = Account(0.0)
    one.route = route
    return one


def test_exceptions_of_one_line_are_one_row_that_counts() -> None:
    failures = Failures()

    for _ in range(3):
        failures.failed(raised(KeyError("price")), account())

    (row,) = failures.as_list()
    assert (row["name"], row["message"], row["route"], row["count"]) == ("KeyError", "'price'", "/price", 3)
    assert row["line"].endswith("test_failures.py:19")
    assert failures.counted() == {"KeyError /price": {"class": "KeyError", "route": "/price", "count": 3}}


def test_an_exception_is_counted_once_for_each_request() -> None:
    failures, one = Failures(), account()

    failures.failed(raised(KeyError("price")), one)
    failures.failed(raised(RuntimeError("its consequence")), one)

    assert [row["name"] for row in failures.as_list()] == ["KeyError"]


def test_rows_and_counters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    monkeypatch.setattr(module, "MOST_COUNTED", 5)
    failures = Failures()

    for number in range(20):
        failures.failed(raised(KeyError("price")), account(f"/{number}"))

    assert len(failures.as_list()) == 5
    assert len(failures.counted()) == 6
    assert sum(row["count"] for row in failures.counted().values()) == 20


def test_the_errno_of_what_began_it_is_known() -> None:
    outer = ValueError("could not save")
    outer.__cause__ = OSError(28, "No space left on device")

    assert root_of(raised(outer)) == ("OSError", "ENOSPC")


def test_an_exception_that_can_not_be_told_is_no_second_exception() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert message_of(Odd()) == "(its message can't be told: RuntimeError)"
    assert class_name(Odd()).endswith("Odd")


def test_an_exception_is_noted_also_where_the_working_directory_has_been_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    (tmp_path / "release").rmdir()
    failures = Failures()

    failures.failed(raised(KeyError("price")), account())

    assert [row["name"] for row in failures.as_list()] == ["KeyError"]


def test_a_syntax_error_is_where_the_file_says() -> None:
    with pytest.raises(SyntaxError) as info:
        compile("x = (", "shop.py", "exec")

    assert place_of(info.value) == "shop.py:1"


def test_flask_tells_what_it_answers_itself() -> None:
    failures, one = Failures(), account("/fail")
    app = flask.Flask("shop")

    @app.get("/fail")
    def fail() -> None:
        raise ZeroDivisionError("division by zero")

    failures.install()
    token = CURRENT.set(one)
    try:
        assert app.test_client().get("/fail").status_code == 500
    finally:
        CURRENT.reset(token)
        failures.remove()

    assert [row["name"] for row in failures.as_list()] == ["ZeroDivisionError"]
    assert not any(receiver == failures._told for receiver in got_request_exception.receivers_for(app))


def test_signals_that_an_old_flask_without_blinker_has_not_hold_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask before 2.3: both calls raise RuntimeError."""

    class Unavailable:
        def connect(self, *args: object, **kwargs: object) -> None:
            raise RuntimeError("Signalling support is unavailable")

        disconnect = connect

    monkeypatch.setattr(flask.signals, "got_request_exception", Unavailable())
    failures = Failures()

    failures.install()
    failures.remove()

    assert failures.as_list() == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("division by zero", "division by zero"),
        ("'password'", "'password'"),
        ("invalid literal for int() with base 10: 'my secret'", "invalid literal for int() with base 10: '…'"),
        ("user joe@example.com has no key sk_live_51HabcDEF1234", "user …@… has no key sk_l…"),
        ("duplicate key\nDETAIL:  Key (email)=(a@b.de) exists.", "duplicate key"),
        ("(x) no such table [SQL: SELECT 'a']", "(x) no such table"),
        ("Max retries exceeded with url: /pay?card=4111", "Max retries exceeded with url: /pay?card=…"),
        ("connection to 10.0.0.1:5432 failed", "connection to 10.0.0.1:5432 failed"),
    ],
)  # fmt: skip
def test_messages_are_shown_without_values(text: str, shown: str) -> None:
    assert message(text) == shown


def test_requests_of_nobody_are_left_alone() -> None:
    failures: Any = Failures()

    failures.failed(raised(KeyError("price")), None)

    assert failures.as_list() == []
