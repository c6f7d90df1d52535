"""Input that is refused by the API of boards: what is wrong is named, and nothing is saved."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.app.api.documents import BOARD, SOURCE, Headers, with_source


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
