import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from app.extensions import db
from app.models import Board, Source

Headers = dict[str, str]
SOURCE = {"name": "one", "url": "http://one.example/", "timeout_ms": 700}
BOARD = {"slug": "mine", "title": "Mine", "public": False, "sources": [SOURCE]}


def with_source(**values: Any) -> dict[str, Any]:
    return BOARD | {"sources": [SOURCE | values]}


class TestMaking:
    def test_board_is_made_and_says_where_it_is(self, client: FlaskClient, bearer: Callable[..., Headers]) -> None:
        headers = bearer()

        response = client.post("/api/boards", json=BOARD, headers=headers)

        assert response.status_code == 201
        assert response.json == BOARD
        assert response.headers["Location"] == "/api/boards/mine"
        assert client.get(response.headers["Location"], headers=headers).json == BOARD

    def test_left_out_values_have_defaults(self, client: FlaskClient, bearer: Callable[..., Headers]) -> None:
        short = {"slug": "short", "title": "Short", "sources": [{"name": "one", "url": "http://one.example/"}]}

        made = client.post("/api/boards", json=short, headers=bearer()).json

        assert made["public"] is False
        assert made["sources"][0]["timeout_ms"] == 2000

    def test_space_round_title_and_names_is_dropped(self, client: FlaskClient, bearer: Callable[..., Headers]) -> None:
        response = client.post(
            "/api/boards", json=with_source(name="\u2003one ") | {"title": " Mine "}, headers=bearer()
        )

        assert response.json == BOARD

    def test_whole_number_may_be_written_with_a_point(
        self, client: FlaskClient, bearer: Callable[..., Headers]
    ) -> None:
        response = client.post("/api/boards", json=with_source(timeout_ms=700.0), headers=bearer())

        assert response.json == BOARD

    def test_nobody_makes_a_board(self, client: FlaskClient, count: Callable[[str], int]) -> None:
        response = client.post("/api/boards", json=BOARD)

        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert count("boards") == 0

    def test_slug_that_is_taken_is_a_conflict(
        self, client: FlaskClient, bearer: Callable[..., Headers], count: Callable[[str], int]
    ) -> None:
        assert client.post("/api/boards", json=BOARD, headers=bearer("ann@example.org")).status_code == 201

        response = client.post("/api/boards", json=BOARD, headers=bearer("bob@example.org"))

        assert response.status_code == 409
        assert response.mimetype == "application/problem+json"
        assert "choose another slug" in response.json["detail"]
        assert (count("boards"), count("sources")) == (1, 1)

    def test_of_many_that_take_a_slug_at_once_one_gets_it(
        self, app: Flask, bearer: Callable[..., Headers], count: Callable[[str], int]
    ) -> None:
        headers = bearer()
        together = threading.Barrier(6)

        def post(_: int) -> int:
            together.wait(10)
            return app.test_client().post("/api/boards", json=BOARD, headers=headers).status_code

        with ThreadPoolExecutor(6) as executor:
            statuses = sorted(executor.map(post, range(6)))

        assert statuses == [201, 409, 409, 409, 409, 409]
        assert (count("boards"), count("sources")) == (1, 1)


class TestBadInput:
    @pytest.mark.parametrize(
        ("field", "document"),
        [
            ("slug", BOARD | {"slug": ""}),
            ("slug", BOARD | {"slug": "Upper"}),
            ("slug", BOARD | {"slug": "-edge"}),
            ("slug", BOARD | {"slug": "edge-"}),
            ("slug", BOARD | {"slug": "a" * 65}),
            ("slug", BOARD | {"slug": "line\n"}),
            ("slug", BOARD | {"slug": "a/b"}),
            ("slug", BOARD | {"slug": 5}),
            ("slug", BOARD | {"slug": "new"}),
            ("title", BOARD | {"title": ""}),
            ("title", BOARD | {"title": " \u2003"}),
            ("title", BOARD | {"title": "a" * 121}),
            ("title", BOARD | {"title": "nul\0"}),
            ("title", BOARD | {"title": "bell\a"}),
            ("title", BOARD | {"title": None}),
            ("public", BOARD | {"public": "true"}),
            ("public", BOARD | {"public": 1}),
            ("owner_id", BOARD | {"owner_id": 1}),
            ("sources", BOARD | {"sources": []}),
            ("sources", BOARD | {"sources": {}}),
            ("sources", BOARD | {"sources": [SOURCE | {"name": str(n)} for n in range(51)]}),
            ("sources", BOARD | {"sources": [SOURCE, SOURCE]}),
            ("sources", BOARD | {"sources": [SOURCE, SOURCE | {"name": " one"}]}),
            ("sources.0", BOARD | {"sources": ["http://one.example/"]}),
            ("sources.0.name", with_source(name="")),
            ("sources.0.name", with_source(name="a" * 81)),
            ("sources.0.name", with_source(name="nul\0")),
            ("sources.0.timeout_ms", with_source(timeout_ms=49)),
            ("sources.0.timeout_ms", with_source(timeout_ms=60_001)),
            ("sources.0.timeout_ms", with_source(timeout_ms="100")),
            ("sources.0.timeout_ms", with_source(timeout_ms=True)),
            ("sources.0.timeout_ms", with_source(timeout_ms=100.5)),
            ("sources.0.timeout_ms", with_source(timeout_ms=float("nan"))),
            ("sources.0.timeout_ms", with_source(timeout_ms=float("inf"))),
            ("sources.0.timeout_ms", with_source(timeout_ms=10**30)),
            ("sources.0.url", with_source(url="")),
            ("sources.0.url", with_source(url="one.example")),
            ("sources.0.url", with_source(url="ftp://one.example/")),
            ("sources.0.url", with_source(url="javascript:alert(1)")),
            ("sources.0.url", with_source(url="file:///etc/passwd")),
            ("sources.0.url", with_source(url="http://")),
            ("sources.0.url", with_source(url="http:///path")),
            ("sources.0.url", with_source(url="http://:80/")),
            ("sources.0.url", with_source(url="http://user:secret@one.example/")),
            ("sources.0.url", with_source(url="http://user@one.example/")),
            ("sources.0.url", with_source(url="http://@one.example/")),
            ("sources.0.url", with_source(url="http://one.example:0/")),
            ("sources.0.url", with_source(url="http://one.example:99999/")),
            ("sources.0.url", with_source(url="http://one.example:port/")),
            ("sources.0.url", with_source(url="http://[::1/")),
            ("sources.0.url", with_source(url="http://[nonsense]/")),
            ("sources.0.url", with_source(url="http://one.example/\0")),
            ("sources.0.url", with_source(url="http://one.example/\r\nX-Header: y")),
            ("sources.0.url", with_source(url="http://one example/")),
            ("sources.0.url", with_source(url="http://" + "a" * 2000)),
            ("sources.0.url", with_source(url="http://\u2100.example/")),
            ("sources.0.speed", with_source(speed=1)),
            ("(body)", []),
            ("(body)", "text"),
        ],
    )
    def test_wrong_field_is_named_and_nothing_is_saved(
        self, client: FlaskClient, headers: Headers, count: Callable[[str], int], field: str, document: Any
    ) -> None:
        response = client.post("/api/boards", json=document, headers=headers)

        assert response.status_code == 422
        assert response.mimetype == "application/problem+json"
        assert field in [error["field"] for error in response.json["errors"]]
        assert all(error["message"] for error in response.json["errors"])
        assert (count("boards"), count("sources")) == (0, 0)

    def test_null_is_no_board(self, client: FlaskClient, headers: Headers) -> None:
        response = client.post("/api/boards", data=b"null", content_type="application/json", headers=headers)

        assert response.status_code == 422

    def test_all_wrong_fields_are_told_at_once(self, client: FlaskClient, headers: Headers) -> None:
        response = client.post("/api/boards", json={"slug": "-", "sources": [{"url": 1}]}, headers=headers)

        fields = {error["field"] for error in response.json["errors"]}
        assert fields == {"slug", "title", "sources.0.name", "sources.0.url"}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"not json",
            b"\xff\xfe",
            b'{"title": "\\ud800"}',
            b"[" * 100_000,
            b'{"slug": "a",}',
            b"\x00",
        ],
    )
    def test_broken_json_is_a_bad_request(self, client: FlaskClient, headers: Headers, body: bytes) -> None:
        response = client.post("/api/boards", data=body, content_type="application/json", headers=headers)

        assert response.status_code == 400
        assert response.json["detail"].startswith("The body is not valid JSON: ")

    @pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "garbage"])
    def test_other_content_types_are_refused(
        self, client: FlaskClient, headers: Headers, content_type: str | None
    ) -> None:
        response = client.post("/api/boards", data=b"{}", content_type=content_type, headers=headers)

        assert response.status_code == 415
        assert response.mimetype == "application/problem+json"

    def test_body_that_is_too_large_is_refused(self, client: FlaskClient, headers: Headers) -> None:
        response = client.post("/api/boards", data=b" " * 2_000_000, content_type="application/json", headers=headers)

        assert response.status_code == 413
        assert response.mimetype == "application/problem+json"

    @pytest.mark.parametrize(
        "slug", ["nothing", "%00", "a%00b", "%ff", "..", "A", "a" * 5000, "%F0%9F%90%8D", "' OR 1=1"]
    )
    @pytest.mark.parametrize("rest", ["", "/results", "/stream", "/history"])
    def test_unknown_board_is_not_found(self, client: FlaskClient, slug: str, rest: str) -> None:
        response = client.get(f"/api/boards/{slug}{rest}")

        assert response.status_code == 404
        assert response.mimetype == "application/problem+json"

    @pytest.mark.parametrize("path", ["/api/", "/api/nothing", "/api/boards/", "/api/boards/a/b/c"])
    def test_unknown_address_is_a_problem_document(self, client: FlaskClient, path: str) -> None:
        response = client.get(path)

        assert response.status_code == 404
        assert response.mimetype == "application/problem+json"

    def test_wrong_method_is_a_problem_document_that_names_the_right_ones(self, client: FlaskClient) -> None:
        response = client.patch("/api/boards")

        assert response.status_code == 405
        assert response.mimetype == "application/problem+json"
        assert {"GET", "POST"} <= set(response.headers["Allow"].split(", "))

    @pytest.mark.parametrize(
        "query",
        ["page=0", "page=-1", "page=x", "page=1.5", "page=99999999999999999999", "per_page=0", "per_page=101", "page="],
    )
    def test_page_out_of_range_is_refused(self, client: FlaskClient, query: str) -> None:
        response = client.get(f"/api/boards?{query}")

        assert response.status_code == 422
        assert response.json["errors"][0]["field"] == query.partition("=")[0]


@pytest.fixture
def headers(bearer: Callable[..., Headers]) -> Headers:
    return bearer()


class TestReading:
    def test_list_has_your_own_boards_and_public_ones(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        ann, bob = bearer("ann@example.org"), bearer("bob@example.org")
        make_board(ann, "ann-private")
        make_board(ann, "ann-public", public=True)
        make_board(bob, "bob-private")

        assert [board["slug"] for board in client.get("/api/boards", headers=ann).json] == ["ann-private", "ann-public"]
        assert [board["slug"] for board in client.get("/api/boards", headers=bob).json] == ["ann-public", "bob-private"]
        assert [board["slug"] for board in client.get("/api/boards").json] == ["ann-public"]

    def test_list_comes_in_pages(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        headers = bearer()
        for n in range(5):
            make_board(headers, f"board-{n}")

        second = client.get("/api/boards?page=2&per_page=2", headers=headers)
        past_the_end = client.get("/api/boards?page=9&per_page=2", headers=headers)

        assert [board["slug"] for board in second.json] == ["board-2", "board-3"]
        assert second.headers["X-Total-Count"] == "5"
        assert second.headers["Link"] == (
            '</api/boards?page=1&per_page=2>; rel="first", </api/boards?page=3&per_page=2>; rel="last", '
            '</api/boards?page=1&per_page=2>; rel="prev", </api/boards?page=3&per_page=2>; rel="next"'
        )
        assert past_the_end.json == []
        assert 'page=3&per_page=2>; rel="prev"' in past_the_end.headers["Link"]

    def test_empty_list_has_one_empty_page(self, client: FlaskClient) -> None:
        response = client.get("/api/boards")

        assert response.json == []
        assert response.headers["X-Total-Count"] == "0"
        assert 'rel="next"' not in response.headers["Link"]

    def test_private_board_is_not_there_for_others(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        ann, bob = bearer("ann@example.org"), bearer("bob@example.org")
        make_board(ann)

        nowhere = client.get("/api/boards/nowhere", headers=bob)
        for method in ("get", "delete"):
            response = getattr(client, method)("/api/boards/mine", headers=bob)
            assert response.status_code == 404
            assert response.json["detail"] == nowhere.json["detail"].replace("nowhere", "mine")
        assert client.put("/api/boards/mine", json=BOARD, headers=bob).status_code == 404
        assert client.get("/api/boards/mine").status_code == 404
        assert client.get("/api/boards/mine", headers=ann).status_code == 200

    def test_public_board_is_read_by_anybody_and_edited_by_its_owner(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        ann, bob = bearer("ann@example.org"), bearer("bob@example.org")
        made = make_board(ann, public=True)

        assert client.get("/api/boards/mine").json == made
        assert client.put("/api/boards/mine", json=BOARD, headers=bob).status_code == 403
        assert client.delete("/api/boards/mine", headers=bob).status_code == 403
        assert client.put("/api/boards/mine", json=BOARD).status_code == 401
        assert client.delete("/api/boards/mine").status_code == 401
        assert client.get("/api/boards/mine").json == made

    def test_board_of_nobody_is_edited_by_nobody(
        self, app: Flask, client: FlaskClient, bearer: Callable[..., Headers]
    ) -> None:
        with app.app_context():
            db.session.add(Board(slug="demo", title="Demo", is_public=True))
            db.session.commit()

        assert client.delete("/api/boards/demo", headers=bearer()).status_code == 403
        assert client.get("/api/boards/demo").status_code == 200

    def test_head_and_options_are_answered(self, client: FlaskClient) -> None:
        assert client.head("/api/boards").status_code == 200
        assert "POST" in client.options("/api/boards").headers["Allow"]


class TestReplacing:
    def test_put_replaces_all_of_the_board(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        headers = bearer()
        make_board(headers, urls={"a": "http://a.example/", "b": "http://b.example/"}, public=True)
        wanted = {
            "slug": "renamed",
            "title": "Renamed",
            "public": False,
            "sources": [{"name": "c", "url": "http://c.example/", "timeout_ms": 50}],
        }

        response = client.put("/api/boards/mine", json=wanted, headers=headers)

        assert response.status_code == 200
        assert response.json == wanted
        assert client.get("/api/boards/renamed", headers=headers).json == wanted
        assert client.get("/api/boards/mine", headers=headers).status_code == 404

    def test_names_may_be_swapped_and_the_order_changed(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        headers = bearer()
        board = make_board(headers, urls={"a": "http://a.example/", "b": "http://b.example/"})
        first, second = board["sources"]
        swapped = board | {"sources": [second | {"name": "a"}, first | {"name": "b"}]}

        assert client.put("/api/boards/mine", json=swapped, headers=headers).json == swapped
        assert client.get("/api/boards/mine", headers=headers).json == swapped

    def test_put_of_the_same_changes_nothing(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        headers = bearer()
        board = make_board(headers)

        assert client.put("/api/boards/mine", json=board, headers=headers).json == board

    def test_rename_to_a_taken_slug_changes_nothing(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        headers = bearer()
        board = make_board(headers)
        make_board(headers, "other")

        response = client.put("/api/boards/mine", json=BOARD | {"slug": "other"}, headers=headers)

        assert response.status_code == 409
        assert client.get("/api/boards/mine", headers=headers).json == board

    def test_bad_put_changes_nothing(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        headers = bearer()
        board = make_board(headers)

        assert client.put("/api/boards/mine", json=with_source(url="nonsense"), headers=headers).status_code == 422
        assert client.get("/api/boards/mine", headers=headers).json == board

    def test_history_survives_a_replacement(
        self,
        client: FlaskClient,
        bearer: Callable[..., Headers],
        make_board: Callable[..., Any],
    ) -> None:
        headers = bearer()
        make_board(headers, urls={"old": "http://127.0.0.1:1/"})
        client.get("/api/boards/mine/results", headers=headers)

        client.put("/api/boards/mine", json=BOARD, headers=headers)

        assert [fetch["name"] for fetch in client.get("/api/boards/mine/history", headers=headers).json] == ["old"]

    def test_many_that_replace_a_board_at_once_all_succeed_one_after_the_other(
        self, app: Flask, bearer: Callable[..., Headers], make_board: Callable[..., Any], count: Callable[[str], int]
    ) -> None:
        headers = bearer()
        board = make_board(headers, urls={"a": "http://a.example/", "b": "http://b.example/"})
        together = threading.Barrier(6)

        def put(n: int) -> int:
            together.wait(10)
            changed = board | {"title": f"Turn {n}"}
            return app.test_client().put("/api/boards/mine", json=changed, headers=headers).status_code

        with ThreadPoolExecutor(6) as executor:
            statuses = list(executor.map(put, range(6)))

        assert statuses == [200] * 6
        assert count("sources") == 2


class TestDeleting:
    def test_board_goes_with_its_sources_and_history(
        self,
        client: FlaskClient,
        bearer: Callable[..., Headers],
        make_board: Callable[..., Any],
        count: Callable[[str], int],
    ) -> None:
        headers = bearer()
        make_board(headers)
        client.get("/api/boards/mine/results", headers=headers)

        response = client.delete("/api/boards/mine", headers=headers)

        assert (response.status_code, response.data) == (204, b"")
        assert (count("boards"), count("sources"), count("fetches")) == (0, 0, 0)
        assert client.delete("/api/boards/mine", headers=headers).status_code == 404

    def test_of_many_that_delete_a_board_at_once_one_does(
        self, app: Flask, bearer: Callable[..., Headers], make_board: Callable[..., Any]
    ) -> None:
        headers = bearer()
        make_board(headers)
        together = threading.Barrier(4)

        def delete(_: int) -> int:
            together.wait(10)
            return app.test_client().delete("/api/boards/mine", headers=headers).status_code

        with ThreadPoolExecutor(4) as executor:
            statuses = sorted(executor.map(delete, range(4)))

        assert statuses == [204, 404, 404, 404]


def test_stored_values_are_answered_even_if_todays_rules_would_refuse_them(
    app: Flask, client: FlaskClient, bearer: Callable[..., Headers], make_board: Callable[..., Any]
) -> None:
    headers = bearer()
    make_board(headers)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(update(Source).values(url="gopher://old.example/"))

    assert client.get("/api/boards/mine", headers=headers).status_code == 200
    (source,) = client.get("/api/boards/mine/results", headers=headers).json["sources"]
    assert "http:// and https://" in source["error"]
