"""Routes behind a login: what is said when they were not seen, and that they are seen with one."""

from pathlib import Path

import pytest

from greenroom.doctor.driving import Seen
from greenroom.doctor.login import is_behind_login, not_seen
from greenroom.doctor.plan import Route
from greenroom.doctor.server import Answer

from .conftest import doctor

SHOP = '''
"""A report behind a login that has a token against forged requests."""

import time

from flask import Flask, redirect, request, session

app = Flask(__name__)
app.secret_key = "x"


@app.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "GET":
        return "<form><input type=hidden name=token value=t1><input type=password name=password></form>"
    if request.form.to_dict() != {"token": "t1", "password": "secret"}:
        return "no", 403
    session["user"] = "ada"
    return redirect("/")


@app.get("/report")
def report():
    if "user" not in session:
        return redirect("/login?next=/report")
    until = time.perf_counter() + 0.06
    while time.perf_counter() < until:
        pass
    return "report"
'''


def is_own(place: str) -> bool:
    return place.startswith("shop.py")


def seen(status: int, location: str = "") -> Seen:
    headers = {"location": location} if location else {}
    return Seen(Route("GET /report", "/report"), alone=[Answer(status, 0.01, headers=headers)] * 2)


@pytest.mark.parametrize(
    ("status", "location", "is_logged_in", "why"),
    [
        (302, "http://127.0.0.1:1/login?next=%2F", False, "redirected to /login, so it is behind a login"),
        (303, "/accounts/sign-in/", False, "so it is behind a login: --login 'POST /accounts/sign-in/ ...'"),
        (401, "", False, "answered 401, so it is behind a login: --login 'POST /login ...'"),
        (403, "", True, "in spite of the login: this user may not see it"),
        (404, "", False, "answered 404: what is behind that was not seen"),
        (500, "", True, "answered 500: what is behind that was not seen"),
    ],
)
def test_what_was_not_seen_is_said(status: int, location: str, is_logged_in: bool, why: str) -> None:
    skipped = not_seen(seen(status, location), is_logged_in=is_logged_in, is_own=is_own)

    assert skipped is not None
    assert skipped.what == "GET /report"
    assert why in skipped.why


def test_an_answer_that_asks_for_a_header_is_told_with_it() -> None:
    refused = Answer(401, 0.01, headers={"www-authenticate": 'Basic realm="shop"'})

    skipped = not_seen(Seen(Route("GET /", "/"), alone=[refused]), is_logged_in=False, is_own=is_own)

    assert skipped is not None
    assert skipped.why == "answered 401, so it is behind a login: --header 'Authorization: Basic ...'"


@pytest.mark.parametrize(("status", "location"), [(200, ""), (302, "/dashboard"), (302, "/blog/logins-are-hard")])
def test_what_was_seen_is_not_said(status: int, location: str) -> None:
    assert not_seen(seen(status, location), is_logged_in=False, is_own=is_own) is None
    assert not is_behind_login(seen(status, location))


def test_the_error_of_a_route_that_failed_is_said() -> None:
    failed = seen(500, "")
    failed.output = (
        'Traceback (most recent call last):\n  File "shop.py", line 7, in report\n    raise KeyError(user)\n'
        "KeyError: 'a secret'\n"
    )

    skipped = not_seen(failed, is_logged_in=False, is_own=is_own)

    assert skipped is not None
    assert skipped.why == "answered 500, KeyError at shop.py:7: what is behind that was not seen"


@pytest.mark.nightly
def test_a_line_behind_a_login_is_found_with_one_only(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    line = SHOP.splitlines().index("    while time.perf_counter() < until:") + 1

    without = doctor(tmp_path, "shop:app", "--json", "--no-gains", "--for", "30")
    refused = doctor(tmp_path, "shop:app", "--json", "--no-gains", "--for", "30", "--login", "POST /login password=no")
    seen = doctor(tmp_path, "shop:app", "--json", "--no-gains", "--for", "30", "--login", "POST /login password=secret")

    assert "stops-loop" not in without.rules
    assert "GET /report" in [one["what"] for one in without.report["skipped"]]
    assert any("was answered 403" in one["why"] for one in refused.report["skipped"])
    found = [one for one in seen.report["findings"] if one["rule"] == "stops-loop"]
    assert [one["file"] for one in found] == ["shop.py"]
    assert abs(found[0]["line"] - line) <= 1
    assert "secret" not in seen.output
