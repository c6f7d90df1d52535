"""gunicorn's hooks of a request: they get what gunicorn gives them, and what they change counts."""

import logging
from collections.abc import Callable
from typing import Any

from .harness import BOTH, Ours, serve

GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-Given: 1\r\n\r\n"


class App:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.seen.append((environ.get("HTTP_X_GIVEN"), environ.get("HTTP_X_REQUEST_ID")))
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


@BOTH
def test_request_of_pre_request_is_gunicorns_and_what_the_hook_adds_counts(kind: Any) -> None:
    app, hooked = App(), []

    def pre_request(worker: Any, request: Any) -> None:
        request.start_time = 12.5
        request.headers.append(("X-REQUEST-ID", "one"))
        hooked.append((request.method, request.path, request.query, request.version, request.scheme, request.headers))
        hooked.append((request.remote_addr == request.peer_addr, request.req_number, request.must_close))
        hooked.append((request.cfg is worker.cfg, request.unreader is not None))

    def post_request(worker: Any, request: Any, environ: dict[str, Any], response: Any) -> None:
        hooked.append((request.start_time, environ["HTTP_X_REQUEST_ID"], response.status, response.sent))

    with serve(kind, app, cfg={"pre_request": pre_request, "post_request": post_request}) as site:
        answer = site.ask(GET)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert app.seen == [("1", "one")]
    headers = [("HOST", "x"), ("X-GIVEN", "1"), ("X-REQUEST-ID", "one")]
    assert hooked == [
        ("GET", "/a", "b", (1, 1), "http", headers),
        (True, 1, False),
        (True, True),
        (12.5, "one", "200 OK", 2),
    ]
    assert site.records.at(logging.ERROR) == []


@BOTH
def test_post_request_alone_may_read_all_of_the_request(kind: Any) -> None:
    seen = []

    def post_request(worker: Any, request: Any, environ: dict[str, Any], response: Any) -> None:
        seen.append((request.remote_addr[0], request.req_number, request.headers, response.status_code))

    with serve(kind, App(), cfg={"post_request": post_request}) as site:
        site.ask(GET, GET)

    headers = [("HOST", "x"), ("X-GIVEN", "1")]
    assert seen == [("127.0.0.1", 1, headers, 200), ("127.0.0.1", 2, headers, 200)]
    assert site.records.at(logging.ERROR) == []


@BOTH
def test_pre_request_that_fails_is_an_answered_error(kind: Any) -> None:
    def pre_request(worker: Any, request: Any) -> None:
        raise ValueError("of the hook")

    with serve(kind, App(), cfg={"pre_request": pre_request}) as site:
        answer = site.ask(GET)

    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")


def test_without_hooks_a_plain_head_stays_plain() -> None:
    """gunicorn's parser takes twenty times as long."""
    with serve(Ours, App()) as site:
        assert site.kind.serving.parser.is_usable
