"""A session that requests share, and with it a user's cookies, is named in the log: once, with both requests."""

import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from greenroom.in_flight import CURRENT, Record
from greenroom.waits.http import cookies
from greenroom.waits.http.adapter import Transport
from greenroom.waits.naming import Once

from .test_changed_sessions import Counting
from .upstream import Upstream, answer


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cookies, "told", Once())


@pytest.fixture
def request_to() -> Iterator[Callable[[str], None]]:
    """`request_to("/a")`: from now on we work for that request."""
    token = CURRENT.set(None)

    def begin(path: str) -> None:
        CURRENT.set(Record(time.monotonic(), environ={"REQUEST_METHOD": "GET", "PATH_INFO": path}))

    yield begin
    CURRENT.reset(token)


@pytest.fixture
def session(upstream: Upstream) -> Iterator[requests.Session]:
    upstream.on("/login", answer(b"", "200 OK", "Set-Cookie: user=alice; Path=/"))
    with requests.Session() as made:
        yield made


@pytest.mark.parametrize("adapter", ["ours", "of one's own"])
def test_cookies_of_another_request_are_said_once(
    adapter: str,
    ours: Transport,
    session: requests.Session,
    upstream: Upstream,
    request_to: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    if adapter != "ours":
        session.mount("http://", Counting())
    request_to("/alice")
    session.get(upstream.url + "/login")
    session.get(upstream.url + "/a")
    assert not caplog.records
    for _ in range(3):
        request_to("/bob")
        assert session.get(upstream.url + "/a").json()["fields"]["cookie"] == "user=alice"

    (said,) = [each.getMessage() for each in caplog.records]
    assert "sends GET /bob cookies to 127.0.0.1 that were set in GET /alice" in said


def test_nothing_is_said_of_what_is_not_shared(
    ours: Transport,
    session: requests.Session,
    upstream: Upstream,
    request_to: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    session.get(upstream.url + "/login")  # at start-up, outside of requests
    request_to("/bob")
    session.get(upstream.url + "/a")
    for path in ("/one", "/other"):
        request_to(path)
        with requests.Session() as own:
            own.get(upstream.url + "/login")
            own.get(upstream.url + "/a")
        requests.get(upstream.url + "/login")
        requests.get(upstream.url + "/a")

    assert not caplog.records


def test_a_session_with_such_cookies_can_be_pickled(
    ours: Transport, session: requests.Session, upstream: Upstream, request_to: Callable[[str], None]
) -> None:
    request_to("/alice")
    session.get(upstream.url + "/login")

    again: Any = pickle.loads(pickle.dumps(session))

    assert again.cookies.get_dict() == {"user": "alice"}
