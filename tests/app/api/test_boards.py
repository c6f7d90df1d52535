"""Boards are made, listed and read through the API."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from app.extensions import db
from app.models import Board, Source
from tests.app.api.documents import BOARD, Headers, with_source


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
