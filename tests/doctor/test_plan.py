"""The requests that are sent: the application's routes, and those of descriptions, logs and recordings."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from greenroom.doctor.plan import planned, read_file
from greenroom.errors import GreenroomError

PROJECT: Any = SimpleNamespace(functions=[], views=[])
OPENAPI = {
    "openapi": "3.0.2",
    "paths": {
        "/items/{number}": {
            "parameters": [{"name": "number", "in": "path", "schema": {"type": "integer"}}],
            "get": {"parameters": [{"name": "page", "in": "query", "required": True, "example": 2}]},
            "delete": {},
        },
        "/items": {"post": {}},
        "/session/logout": {"get": {}},
    },
}
HAR = {
    "log": {
        "entries": [
            {
                "request": {
                    "method": "GET",
                    "url": "https://shop.example/search?q=chair",
                    "headers": [{"name": "Cookie", "value": "session=secret"}],
                }
            },
            {"request": {"method": "POST", "url": "https://shop.example/cart", "postData": {"text": "n=1"}}},
        ]
    }
}
LOG = """\
10.0.0.1 - - [30/Nov/2026:21:00:00 +0000] "GET /items/7?page=2 HTTP/1.1" 200 12 "-" "curl"
10.0.0.1 - - [30/Nov/2026:21:00:01 +0000] "POST /cart HTTP/1.1" 302 12 "-" "curl"
10.0.0.1 - - [30/Nov/2026:21:00:02 +0000] "GET /wp-admin.php HTTP/1.1" 404 12 "-" "scanner"
10.0.0.1 - - [30/Nov/2026:21:00:03 +0000] "GET /logout HTTP/1.1" 200 12 "-" "curl"
"""
RECORDING = {"records": [{"name": "/items"}, {"name": "/items/<number>"}, {"name": "ops"}]}


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (json.dumps(OPENAPI), ["/items/1?page=2"]),
        (json.dumps(HAR), ["/search?q=chair"]),
        (LOG, ["/items/7"]),
        (json.dumps(RECORDING), ["/items"]),
    ],
    ids=["OpenAPI", "HAR", "access log", "recording"],
)
def test_a_file_says_which_requests_are_safe(content: str, paths: list[str], tmp_path: Path) -> None:
    file = tmp_path / "requests"
    file.write_text(content)

    routes = read_file(file, allow_writes=False)

    assert [route.path for route in routes] == paths
    assert {route.method for route in routes} == {"GET"}
    assert not any("Cookie" in route.headers for route in routes)


def test_a_recorded_form_is_sent_only_where_writes_are_allowed(tmp_path: Path) -> None:
    file = tmp_path / "session.har"
    file.write_text(json.dumps(HAR))

    routes = read_file(file, allow_writes=True)

    assert [(route.method, route.path, route.body) for route in routes][1:] == [("POST", "/cart", b"n=1")]


def test_a_file_without_a_request_is_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    file.write_text("nothing\n")

    with pytest.raises(
        GreenroomError, match="has no request that may be asked: only GET counts without --allow-writes"
    ):
        read_file(file, allow_writes=False)


def rule(path: str, *methods: str, **arguments: str) -> dict[str, Any]:
    return {
        "rule": path,
        "endpoint": path.strip("/"),
        "methods": list(methods or ("GET", "HEAD", "OPTIONS")),
        "arguments": arguments,
        "is_websocket": False,
        "host": "",
        "place": "",
    }


def test_routes_that_write_or_say_so_are_left_out_with_the_reason() -> None:
    routes, skipped = planned(
        [
            rule("/items/<int:number>", number="IntegerConverter"),
            rule("/tags/<tag>", tag="UnicodeConverter"),
            rule("/when/<date:day>", day="DateConverter"),
            rule("/cart", "POST"),
            rule("/items/<int:number>/delete", number="IntegerConverter"),
        ],
        PROJECT,
        urls=["/when/2026-11-30"],
    )

    assert [route.target() for route in routes] == ["/when/2026-11-30", "/items/1", "/tags/doctor"]
    assert [one.what for one in skipped] == ["GET /when/<date:day>", "POST /cart", "GET /items/<int:number>/delete"]
    assert "--allow-writes" in skipped[1].why


def test_where_no_route_can_be_asked_the_first_page_is_and_that_is_said() -> None:
    static = {"rule": "/static/<path:filename>", "methods": ["GET"], "arguments": {}, "endpoint": "static", "place": ""}

    routes, skipped = planned([static], PROJECT)

    assert [route.name for route in routes] == ["GET /"]
    assert [(one.what, "lists none" in one.why) for one in skipped] == [("routes", True)]
