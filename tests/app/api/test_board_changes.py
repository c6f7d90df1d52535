"""Boards are replaced and deleted through the API, also by many at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from tests.app.api.documents import BOARD, Headers, with_source


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
