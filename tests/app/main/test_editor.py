from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from werkzeug.datastructures import MultiDict

from app.extensions import db
from app.main.forms import BoardForm
from app.models import Board
from tests.app.forms import Browser, csrf_token

MakeBoard = Callable[..., int]
GOOD = {"slug": "city", "title": "City life"}
ROW = ("weather", "https://example.org/", "2000")


@pytest.fixture
def ann(browser: Browser, make_user: Callable[..., int]) -> Browser:
    browser.begin_as(make_user("ann@example.org"))
    return browser


def send(browser: Browser, path: str, *rows: tuple[str, str, str], **fields: str) -> Any:
    """Send the form at `path` with these rows of (name, URL, timeout) and fields."""
    sent = MultiDict(fields | {"csrf_token": csrf_token(browser.get(path).text)})
    for name, url, timeout_ms in rows:
        sent.add("name", name)
        sent.add("url", url)
        sent.add("timeout_ms", timeout_ms)
    return browser.client.post(path, data=sent)


def stored(app: Flask, slug: str = "city") -> Any:
    with app.app_context():
        board = db.session.query(Board).filter_by(slug=slug).one_or_none()
        if board is None:
            return None
        sources = [(source.name, source.url, source.timeout_ms) for source in board.sources]
        return board.title, board.is_public, sources


def test_a_board_is_made(app: Flask, ann: Browser) -> None:
    response = send(ann, "/boards/new", ROW, ("trains", "http://example.org/t", "50"), **GOOD, public="on")

    assert response.location == "/boards/city"
    sources = [("weather", "https://example.org/", 2000), ("trains", "http://example.org/t", 50)]
    assert stored(app) == ("City life", True, sources)


def test_rows_left_empty_are_left_out(app: Flask, ann: Browser) -> None:
    send(ann, "/boards/new", ("", "", "2000"), ROW, (" ", "", ""), **GOOD)

    assert stored(app) == ("City life", False, [("weather", "https://example.org/", 2000)])


@pytest.mark.parametrize(
    ("fields", "rows", "complaint"),
    [
        ({"slug": "Not a slug", "title": "x"}, [ROW], "Use small letters, digits and hyphens"),
        ({"slug": "-a", "title": "x"}, [ROW], "Use small letters, digits and hyphens"),
        ({"slug": "new", "title": "x"}, [ROW], "This name is taken by a page."),
        ({"slug": "city", "title": " "}, [ROW], "A title has 1 to 120 characters."),
        ({"slug": "city", "title": "x" * 121}, [ROW], "A title has 1 to 120 characters."),
        ({"slug": "city", "title": "a\x00b"}, [ROW], "A title has 1 to 120 characters."),
        ({}, [ROW], "Use small letters"),
        (GOOD, [], "A board needs at least one source."),
        (GOOD, [("", "https://example.org", "2000")], "A name has 1 to 80 characters."),
        (GOOD, [("a\x00", "https://example.org", "2000")], "A name has 1 to 80 characters."),
        (GOOD, [("a", "", "2000")], "Start with http:// or https://"),
        (GOOD, [("a", "javascript:alert(1)", "2000")], "Start with http:// or https://"),
        (GOOD, [("a", "https://u:p@example.org", "2000")], "Leave user:password@ out"),
        (GOOD, [("a", "https://example.org/\x00", "2000")], "Start with http:// or https://"),
        (GOOD, [("a", "https://example.org", "49")], "A whole number from 50 to 60000."),
        (GOOD, [("a", "https://example.org", "")], "A whole number from 50 to 60000."),
        (GOOD, [("a", "https://example.org", "2 s")], "A whole number from 50 to 60000."),
        (GOOD, [("a", "https://example.org", "²")], "A whole number from 50 to 60000."),
        (GOOD, [("a", "https://example.org", "9" * 5000)], "A whole number from 50 to 60000."),
        (GOOD, [ROW, ROW], "Each source needs a name of its own"),
        (GOOD, [(f"s{i}", "https://example.org", "50") for i in range(51)], "A board has 50 sources at most."),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_saved(
    ann: Browser,
    count: Callable[[str], int],
    fields: dict[str, str],
    rows: list[tuple[str, str, str]],
    complaint: str,
) -> None:
    response = send(ann, "/boards/new", *rows, **fields)

    assert response.status_code == 422
    assert complaint in response.text
    assert count("boards") == count("sources") == 0


def test_all_that_is_wrong_is_said_at_once_and_what_was_written_stays(ann: Browser) -> None:
    page = send(ann, "/boards/new", ("weather", "nonsense", "1"), slug="!", title="Kept").text

    for complaint in ("Use small letters", "Start with http", "A whole number"):
        assert complaint in page
    for kept in ('value="weather"', 'value="nonsense"', 'value="Kept"', 'value="1"'):
        assert kept in page


def test_a_name_that_is_taken_is_told_and_nothing_is_saved(
    app: Flask, ann: Browser, make_board: MakeBoard, count: Callable[[str], int]
) -> None:
    make_board("city", title="First")

    response = send(ann, "/boards/new", ROW, **GOOD)

    assert response.status_code == 422
    assert "Another board has this name" in response.text
    assert stored(app)[0] == "First"
    assert count("boards") == 1


@pytest.mark.parametrize("path", ["/boards/new", "/boards/city/edit", "/boards/city/delete"])
def test_visitors_must_sign_in_first(browser: Browser, make_board: MakeBoard, path: str) -> None:
    make_board("city")

    assert browser.get(path).location == f"/sign-in?next={path}"


@pytest.mark.parametrize("verb", ["edit", "delete"])
@pytest.mark.parametrize(("is_public", "status"), [(True, 403), (False, 404)])
def test_nobody_changes_somebody_elses_board(
    app: Flask,
    ann: Browser,
    make_board: MakeBoard,
    make_user: Callable[..., int],
    verb: str,
    is_public: bool,
    status: int,
) -> None:
    make_board("city", owner_id=make_user("bob@example.org"), is_public=is_public)
    token = csrf_token(ann.get("/boards/new").text)

    assert ann.get(f"/boards/city/{verb}").status_code == status
    sent = ann.client.post(f"/boards/city/{verb}", data={"csrf_token": token, "title": "x", "slug": "city"})
    assert sent.status_code == status
    assert stored(app)[0] == "The city board"


def test_nobody_changes_the_demo_board(ann: Browser, make_board: MakeBoard) -> None:
    make_board("demo")

    assert ann.get("/boards/demo/edit").status_code == 403


def test_a_board_is_changed_with_its_name(
    app: Flask, browser: Browser, make_user: Callable[..., int], make_board: MakeBoard
) -> None:
    ann = make_user()
    browser.begin_as(ann)
    make_board("city", owner_id=ann, sources={"a": "http://a/", "b": "http://b/"})

    form = browser.get("/boards/city/edit").text
    rows = [("b", "http://b/", "100"), ("a", "http://a/", "100")]
    response = send(browser, "/boards/city/edit", *rows, slug="town", title="Town")

    assert 'value="http://b/"' in form
    assert response.location == "/boards/town"
    assert stored(app, "town") == ("Town", False, [("b", "http://b/", 100), ("a", "http://a/", 100)])
    assert stored(app, "city") is None


def test_deleting_takes_a_second_step(
    app: Flask, browser: Browser, make_user: Callable[..., int], make_board: MakeBoard, count: Callable[[str], int]
) -> None:
    ann = make_user()
    browser.begin_as(ann)
    make_board("city", owner_id=ann)

    asked = browser.get("/boards/city/delete")
    assert "can’t be undone" in asked.text
    assert count("boards") == 1
    assert browser.post("/boards/city/delete").location == "/"
    assert count("boards") == count("sources") == 0


@pytest.mark.parametrize("path", ["/boards/new", "/boards/city/edit", "/boards/city/delete"])
def test_forms_need_their_token(
    app: Flask, browser: Browser, make_user: Callable[..., int], make_board: MakeBoard, path: str
) -> None:
    ann = make_user()
    browser.begin_as(ann)
    make_board("city", owner_id=ann)

    assert browser.client.post(path, data=GOOD).status_code == 400
    assert stored(app)[0] == "The city board"


@pytest.mark.parametrize(
    ("action", "names"),
    [
        ("up-1", ["b", "a", "c"]),
        ("up-0", ["a", "b", "c"]),
        ("down-1", ["a", "c", "b"]),
        ("down-2", ["a", "b", "c"]),
        ("remove-0", ["b", "c"]),
        ("remove-99", ["a", "b", "c"]),
        ("add", ["a", "b", "c", "", "", ""]),
    ],
)
def test_rows_are_moved_added_and_removed_by_the_server_too(action: str, names: list[str]) -> None:
    form = BoardForm.of_request(MultiDict([(field, each) for field in ("name", "url", "timeout_ms") for each in "abc"]))

    assert form.change_rows(action)
    assert [row.name for row in form.rows] == names


@pytest.mark.parametrize("action", ["", "save", "up-", "up-x", "remove-9999", "drop"])
def test_a_button_that_is_not_of_the_rows_changes_none(action: str) -> None:
    assert not BoardForm.of_request(MultiDict()).change_rows(action)


def test_changing_rows_saves_nothing(ann: Browser, count: Callable[[str], int]) -> None:
    response = send(ann, "/boards/new", ROW, **GOOD, action="add")

    assert response.status_code == 200
    assert 'value="weather"' in response.text
    assert count("boards") == 0


def test_a_form_with_more_rows_than_anybody_needs_is_cut() -> None:
    sent = MultiDict([(name, "x") for name in ("name", "url", "timeout_ms") for _ in range(400)])

    assert len(BoardForm.of_request(sent).rows) == 250
