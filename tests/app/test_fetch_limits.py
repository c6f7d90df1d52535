"""A board's fetch never makes another, and one client can't have a board fetched without end."""

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from app.config import read_config
from app.extensions import db
from app.fetch_limits import is_fetch
from app.models import Board, Source
from tests.app.api.upstreams import answering, upstream

FETCHES = ["/api/boards/mine/results", "/api/boards/mine/stream", "/boards/mine?fetch=now"]
MakeBoard = Callable[..., None]


@pytest.fixture
def make_board(app: Flask) -> MakeBoard:
    """`make_board("slug", url, ...)`: a public board with these sources."""

    def make(slug: str, *urls: str) -> None:
        with app.app_context():
            sources = [Source(position=n, name=f"s{n}", url=url, timeout_ms=5000) for n, url in enumerate(urls)]
            db.session.add(Board(slug=slug, title=slug, is_public=True, sources=sources))
            db.session.commit()

    return make


@pytest.fixture
def served(app: Flask) -> Iterator[tuple[str, list[str]]]:
    """The application behind a real port: its address, and the path of every request that came."""
    paths: list[str] = []

    def counting(environ: dict[str, Any], start_response: Any) -> Any:
        paths.append(environ["PATH_INFO"])
        return app(environ, start_response)

    server = make_server("127.0.0.1", 0, counting, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def limit(app: Flask, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(app.extensions, "config", app.extensions["config"].model_copy(update={"FETCH_LIMIT": 3}))
    return 3


@pytest.mark.parametrize("path", FETCHES)
def test_a_board_that_is_its_own_source_costs_one_request_a_source(
    client: FlaskClient, make_board: MakeBoard, served: tuple[str, list[str]], path: str
) -> None:
    address, paths = served
    make_board("mine", *[address + path] * 5)

    document = client.get("/api/boards/mine/results").json

    assert [source["status"] for source in document["sources"]] == [508] * 5
    assert len(paths) == 5


def test_boards_that_are_each_others_sources_end_as_well(
    client: FlaskClient, make_board: MakeBoard, served: tuple[str, list[str]]
) -> None:
    address, paths = served
    make_board("one", f"{address}/api/boards/two/results")
    make_board("two", f"{address}/api/boards/one/results")

    (source,) = client.get("/api/boards/one/results").json["sources"]

    assert source["body"]["title"] == "Loop Detected"
    assert paths == ["/api/boards/two/results"]


def test_what_fetches_nothing_may_be_a_source(
    client: FlaskClient, make_board: MakeBoard, served: tuple[str, list[str]]
) -> None:
    make_board("mine", f"{served[0]}/api/boards")

    (source,) = client.get("/api/boards/mine/results").json["sources"]

    assert (source["status"], source["body"][0]["slug"]) == (200, "mine")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], False),
        (["boards"], True),
        (["Boards;n=1"], True),
        (["cloudflare; loops=1, boards"], True),
        (["cloudflare", " boards "], True),
        (["cloudflare; loops=1"], False),
        (["surfboards"], False),
    ],
)
def test_header_is_read_as_its_rfc_says(values: list[str], expected: bool) -> None:
    assert is_fetch(values) is expected


@pytest.mark.parametrize("path", FETCHES)
def test_one_client_fetches_a_board_so_often_and_then_waits(
    app: Flask, client: FlaskClient, make_board: MakeBoard, limit: int, path: str
) -> None:
    with upstream(answering()) as server:
        make_board("mine", server.url())
        make_board("other", server.url())
        allowed = [client.get(path).status_code for _ in range(limit)]
        refused = client.get(path)
        elsewhere = client.get("/api/boards/other/results")
        somebody = client.get(path, environ_overrides={"REMOTE_ADDR": "192.0.2.9"})
        somebody.close()

    assert allowed == [200] * limit
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert (elsewhere.status_code, somebody.status_code) == (200, 200)


def test_looking_at_a_board_is_not_counted(client: FlaskClient, make_board: MakeBoard, limit: int) -> None:
    make_board("mine", "http://127.0.0.1:1/")

    assert [client.get("/boards/mine").status_code for _ in range(2 * limit)] == [200] * (2 * limit)


def test_limit_is_on_in_production_and_can_be_switched_off() -> None:
    production = {
        "APP_ENV": "production",
        "SECRET_KEY": "k" * 32,
        "DATABASE_URL": "postgresql://boards@db.example/boards",
        "PUBLIC_URL": "https://boards.example",
        "MAIL_SERVER": "mail.example",
    }

    assert read_config({}).fetch_limit == 0
    assert read_config(production).fetch_limit == 120
    assert read_config(production | {"FETCH_LIMIT": "0"}).fetch_limit == 0
    assert read_config({"FETCH_LIMIT": "7"}).fetch_limit == 7
