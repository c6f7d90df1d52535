"""Sessions and adapters that somebody changed work as ever, and cookies and credentials stay where they belong."""

import json
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from app.upstream import Fetcher, Target
from greenroom import deadline
from greenroom.waits.http.adapter import Transport

from .conftest import Switch
from .upstream import Received, Upstream, answer, sends

# Sessions and adapters that were changed go through the original adapter.


class Counting(HTTPAdapter):
    calls = 0

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.calls += 1
        return super().send(*args, **kwargs)


def test_an_adapter_of_somebodys_own_is_left_alone(switch: Switch, ours: Transport, upstream: Upstream) -> None:
    adapter = Counting()
    with requests.Session() as session:
        session.mount("http://", adapter)
        assert session.get(upstream.url).ok

    assert adapter.calls == 1
    assert ours.pools is None
    assert len(switch.fell_back) == 1


def test_the_reference_applications_adapter_works_as_ever(adapter: str, switch: Switch, upstream: Upstream) -> None:
    fetcher = Fetcher(allow_private=True, response_bytes=1000, redirects=2, budget_ms=20_000)
    upstream.on("/json", answer(b'{"a": 1}', "200 OK", "Content-Type: application/json"))
    upstream.on("/moved", answer(b"", "302 Found", "Location: /json"))

    targets = [Target(path, upstream.url + path, 20_000) for path in ("/json", "/moved")]
    outcomes = {outcome.name: outcome.body for outcome in fetcher.fetch_all(targets)}

    assert outcomes == {"/json": {"a": 1}, "/moved": {"a": 1}}


@pytest.mark.parametrize(("retries", "tries"), [(2, 3), (0, 1), (False, 1), (None, 4)])
def test_retries_set_later_may_be_a_number(retries: Any, tries: int, adapter: str, upstream: Upstream) -> None:
    url = upstream.on("/", sends(then="close"))

    with requests.Session() as session:
        session.get_adapter(url).max_retries = retries  # type: ignore[attr-defined]
        with pytest.raises(requests.ConnectionError):
            session.get(url)
        assert session.get(upstream.url + "/a").ok

    assert len(upstream.requests) == tries + 1


def test_a_prepared_request_may_have_a_plain_dictionary_of_headers(adapter: str, upstream: Upstream) -> None:
    prepared = requests.Request("GET", upstream.url).prepare()
    prepared.headers = {"X-Mine": "1"}  # type: ignore[assignment]

    with requests.Session() as session, deadline.budget(20.0):
        assert session.send(prepared).json()["fields"]["x-mine"] == "1"


def test_a_pool_manager_that_was_configured_is_used(switch: Switch, ours: Transport, upstream: Upstream) -> None:
    with requests.Session() as session:
        session.get_adapter(upstream.url).poolmanager.connection_pool_kw["source_address"] = ("127.0.0.1", 0)  # type: ignore[attr-defined]
        assert session.get(upstream.url).ok

    assert len(switch.fell_back) == 1


def test_a_pool_that_was_to_block_blocks(switch: Switch, ours: Transport, upstream: Upstream) -> None:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(pool_maxsize=1, pool_block=True))
        assert session.get(upstream.url).ok

    assert len(switch.fell_back) == 1


@pytest.mark.parametrize("how", ["argument", "session", "environment"])
def test_a_proxy_is_used(
    how: str, adapter: str, switch: Switch, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with requests.Session() as session:
        arguments: dict[str, Any] = {}
        if how == "argument":
            arguments = {"proxies": {"http": upstream.url}}
        elif how == "session":
            session.proxies["all"] = upstream.url
        else:
            session.get(upstream.url)  # what was known before the variable was set counts no more
            monkeypatch.setenv("http_proxy", upstream.url)
        response = session.get("http://elsewhere.example/a", **arguments)
        if how == "environment":
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert session.get(upstream.url + "/b").json()["target"] == "/b"

    assert response.json()["target"] == "http://elsewhere.example/a"


def test_a_session_from_before_is_served_by_us(switch: Switch, upstream: Upstream) -> None:
    with requests.Session() as session:
        session.get(upstream.url)
        switch.to("ours")
        response = session.get(upstream.url)

    assert response.raw.__class__.__name__ == "Answer"
    assert not switch.fell_back


def test_a_class_of_sessions_is_served_by_us(switch: Switch, ours: Transport, upstream: Upstream) -> None:
    class Client(requests.Session):
        def rebuild_auth(self, *args: Any) -> None:
            """Somebody's own."""

    with Client() as session:
        session.mount("http://", HTTPAdapter(pool_connections=5, pool_maxsize=200))
        assert session.get(upstream.url).ok

    assert not switch.fell_back


# Cookies belong to sessions.


def test_bare_calls_carry_no_cookies_from_one_to_the_next(adapter: str, upstream: Upstream) -> None:
    upstream.on("/login", answer(b"", "200 OK", "Set-Cookie: session=alice; Path=/"))

    assert requests.get(upstream.url + "/login").cookies.get_dict() == {"session": "alice"}

    assert "cookie" not in requests.get(upstream.url + "/a").json()["fields"]


def test_sessions_keep_their_own_cookies_on_a_connection_they_share(ours: Transport, upstream: Upstream) -> None:
    def login(sock: Any, request: Received) -> bool:
        sock.sendall(answer(b"", "200 OK", f"Set-Cookie: session={request.target.partition('?')[2]}; Path=/"))
        return True

    upstream.on("/login", login)
    with requests.Session() as alice, requests.Session() as bob:
        alice.get(upstream.url + "/login?alice")
        bob.get(upstream.url + "/login?bob")
        seen = [session.get(upstream.url + "/a").json()["fields"]["cookie"] for session in (alice, bob)]

    assert seen == ["session=alice", "session=bob"]
    assert upstream.connections == 1


def test_credentials_stay_with_the_call_that_had_them(ours: Transport, upstream: Upstream) -> None:
    requests.get(upstream.url + "/a", auth=("alice", "secret"))

    assert "authorization" not in json.dumps(requests.get(upstream.url + "/a").json()["fields"])
    assert upstream.connections == 1
