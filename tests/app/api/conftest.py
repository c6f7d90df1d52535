"""Boards made through the API."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.app.api.documents import Headers
from tests.app.api.upstreams import LONG_WAIT, Upstream, answering, upstream


@pytest.fixture
def server() -> Iterator[Upstream]:
    """An upstream that answers `{"ok": true}` at once."""
    with upstream(answering()) as running:
        yield running


@pytest.fixture
def make_board(client: FlaskClient) -> Callable[..., dict[str, Any]]:
    """`make_board(headers, "slug", {"name": "http://..."}, public=True)`; returns the board's document."""

    def make(
        headers: dict[str, str], slug: str = "mine", urls: dict[str, str] | None = None, **values: Any
    ) -> dict[str, Any]:
        sources = [{"name": name, "url": url} for name, url in (urls or {"one": "http://127.0.0.1:1/"}).items()]
        document = {"slug": slug, "title": slug.title(), "sources": sources} | values
        response = client.post("/api/boards", json=document, headers=headers)
        assert response.status_code == 201, response.json
        return response.json

    return make


@pytest.fixture
def budget(app: Flask) -> Iterator[Callable[[int], None]]:
    """`budget(300)`: the milliseconds a board may take in this test."""
    fetcher = app.extensions["fetcher"]
    before = fetcher.budget_ms
    yield lambda ms: setattr(fetcher, "budget_ms", ms)
    fetcher.budget_ms = before


@pytest.fixture
def served(app: Flask) -> Iterator[tuple[str, int]]:
    """The application behind a real socket; its address."""

    class Quiet(WSGIRequestHandler):
        def log(self, *args: Any, **kwargs: Any) -> None:
            """Nothing."""

    running = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield ("127.0.0.1", running.port)
    running.shutdown()
    thread.join(LONG_WAIT)
    running.server_close()


@pytest.fixture
def headers(bearer: Callable[..., Headers]) -> Headers:
    return bearer()
