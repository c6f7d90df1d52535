"""The shortcuts answer as requests does, also when the environment or ~/.netrc changes."""

import os
from collections import deque
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as some
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest, Response
from requests.structures import CaseInsensitiveDict
from urllib3.response import HTTPResponse

from greenroom.waits.http import memo
from greenroom.waits.http.adapter import PLAIN_ATTRIBUTES, Transport

from .conftest import Switch
from .upstream import Upstream, answer, sends

ORIGINALS = {
    "prepare_url": PreparedRequest.prepare_url,
    "merge_setting": requests.sessions.merge_setting,
    "get_environ_proxies": requests.utils.get_environ_proxies,
    "get_netrc_auth": requests.utils.get_netrc_auth,
    "get_auth_from_url": requests.utils.get_auth_from_url,
}
pieces = some.sampled_from(
    ["http://", "https://", "HTTP://", "a", "B.example", "example.org", "127.0.0.1", "[::1]", ":80", ":0", ":080",
     ":99999", "/", "//", "/..",
     "/.", "./", "..", "?", "#", "&", "=", "%20", "%zz", "%C3%BC", "%c3", "ü", " ", "'", "(", "*",
     "@", "user:pw@", ";", "~", "-", "_", "+", ",", "!", "\\", "^", "|", "[", "]", "{", "\n", "\t"]
)  # fmt: skip
urls = some.lists(pieces, max_size=9).map("".join) | some.lists(pieces, max_size=7).map("".join).map(
    "http://example.org:8000/".__add__
)


def tried(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as exc:
        return type(exc), str(exc)


def prepared(function: Any, url: str, params: Any) -> str | None:
    request = PreparedRequest()
    function(request, url, params)
    return request.url


@settings(max_examples=150, deadline=None)
@given(urls)
def test_a_url_is_prepared_as_ever(url: str) -> None:
    quick = memo.prepare_url_over(ORIGINALS["prepare_url"])

    assert tried(prepared, quick, url, {}) == tried(prepared, ORIGINALS["prepare_url"], url, {})


@settings(max_examples=60, deadline=None)
@given(urls)
def test_credentials_in_a_url_are_found_as_ever(url: str) -> None:
    quick = memo.get_auth_from_url_over(ORIGINALS["get_auth_from_url"])

    if "://" in url and memo.is_prepared(url):
        assert tried(quick, url) == tried(ORIGINALS["get_auth_from_url"], url)


values = some.none() | some.booleans() | some.text(max_size=3)
mappings = some.dictionaries(some.sampled_from(["a", "A", "b", "c"]), values, max_size=3)


@settings(max_examples=60, deadline=None)
@given(mappings | values, mappings | values, some.sampled_from([dict, CaseInsensitiveDict]))
def test_settings_are_merged_as_ever(mine: Any, sessions: Any, kind: Any) -> None:
    quick = memo.merge_setting_over(ORIGINALS["merge_setting"])
    if isinstance(sessions, dict):
        sessions = kind(sessions)

    merged, expected = quick(mine, sessions, kind), ORIGINALS["merge_setting"](mine, sessions, kind)

    assert merged == expected
    assert type(merged) is type(expected)
    if isinstance(expected, (dict, CaseInsensitiveDict)):
        assert list(merged.items()) == list(expected.items())


def a_session() -> requests.Session:
    session = requests.Session()
    session.headers["X-Session"] = "1"
    session.cookies.set("of", "the session")
    session.params = {"p": "1"}
    session.hooks["response"] = [print]
    return session


REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head": {"method": "HEAD"},
    "query": {"params": {"a": ["1", "2"], "p": None}},
    "fields": {"headers": {"X-Session": None, "X-Mine": "2"}},
    "cookies": {"cookies": {"mine": "2"}},
    "own Cookie": {"headers": {"Cookie": "a=b"}},
    "hooks": {"hooks": {"response": [len]}},
    "no hooks": {"hooks": {"response": []}},
    "login": {"auth": ("user", "password")},
    "empty login": {"auth": ""},
    "login in the URL": {"url": "http://user:password@a.example/"},
    "lower case": {"method": "get"},
    "body": {"data": {"a": "1"}},
    "empty body": {"data": b""},
    "empty pieces": {"data": deque()},
    "json": {"json": {}},
    "post": {"method": "POST"},
    "bytes": {"url": b"http://a.example/"},
    "strange": {"url": " HTTP://A.example:80/b c?#"},
    "wrong field": {"headers": {"X": "1\r\nY: 2"}},
    "wrong URL": {"url": "nothing"},
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("make", [requests.Session, a_session])
def test_a_request_is_prepared_as_ever(name: str, make: Any, switch: Switch) -> None:
    def seen() -> Any:
        with make() as session:
            request = requests.Request(**{"method": "GET", "url": "http://a.example/b", **REQUESTS[name]})
            prepared = session.prepare_request(request)
        found = vars(prepared).copy()
        found["headers"] = list(prepared.headers.items())
        found["_cookies"] = [vars(cookie) for cookie in found["_cookies"]]
        return found

    switch.to("original")
    expected = tried(seen)
    switch.to("ours")

    assert tried(seen) == expected


def test_a_login_of_netrc_is_added(adapter: str, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password secret\n")

    assert requests.get(upstream.url).json()["fields"]["authorization"].startswith("Basic ")


PROXIES = {"http_proxy": "http://p:1", "HTTPS_PROXY": "http://p:2", "all_proxy": "socks5://p:3"}


def test_proxies_are_those_of_the_environment_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = memo.Environment(ORIGINALS["get_environ_proxies"])
    hosts = ["http://a.example/x", "https://b.test:8443/", "http://127.0.0.1:5000/y", "http://localhost/", "/none"]

    def same() -> None:
        for url in hosts:
            for no_proxy in (None, "b.test", "*"):
                assert quick.get_environ_proxies(url, no_proxy=no_proxy) == ORIGINALS["get_environ_proxies"](
                    url, no_proxy=no_proxy
                )

    same()
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)
        same()
    for no_proxy in ("a.example", ".test,127.0.0.0/8", "b.test:8443", "*", ""):
        monkeypatch.setenv("no_proxy", no_proxy)
        same()
    monkeypatch.setenv("http_proxy", "http://other:1")
    same()
    for name in PROXIES:
        monkeypatch.delenv(name)
        same()


def test_an_environment_that_is_a_plain_dictionary_counts(
    adapter: str, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert requests.get(upstream.url).ok
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    assert requests.get(upstream.url).ok
    with requests.Session() as session:
        assert session.get(upstream.url).ok
    os.environ["http_proxy"] = upstream.url
    assert requests.get("http://a.example/").json()["target"] == "http://a.example/"
    monkeypatch.setattr(os, "environ", {})
    assert requests.get(upstream.url).ok


def test_proxies_from_elsewhere_count(adapter: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    requests.get(upstream.url)
    monkeypatch.setattr(requests.utils, "getproxies", lambda: {"http": upstream.url})

    assert requests.get("http://a.example/").json()["target"] == "http://a.example/"


@pytest.mark.parametrize("name", [".netrc", "_netrc", "$NETRC"])
def test_logins_are_those_of_netrc_at_the_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = memo.get_netrc_auth_over(ORIGINALS["get_netrc_auth"])
    file = tmp_path / name.strip("$")
    if name == "$NETRC":
        monkeypatch.setenv("NETRC", str(file))
    urls = ["http://a.example/x", "http://b.example:80/", "https://c.example", "/none", b"http://a.example/"]
    contents = [
        None,
        "machine a.example login alice password one\n",
        "machine a.example login alice password two\n",
        "machine b.example account acc password three\nmachine c.example\n",
        "default login anyone password four\n",
        "machine\n",
        "this is no netrc",
        None,
    ]

    for content in contents:
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        for url in urls:
            assert quick(url) == ORIGINALS["get_netrc_auth"](url), (content, url)


@pytest.mark.parametrize("way", ["bare", "session"])
def test_a_cookie_policy_that_is_replaced_is_obeyed(
    way: str, adapter: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(DefaultCookiePolicy):
        def set_ok(self, cookie: Any, request: Any) -> bool:
            return False

    url = upstream.on("/set", answer(b"", "200 OK", "Set-Cookie: a=b; Path=/"))
    assert requests.get(url).cookies.get_dict() == {"a": "b"}
    monkeypatch.setattr("http.cookiejar.DefaultCookiePolicy", Refusing)

    with requests.Session() as session:
        assert (requests if way == "bare" else session).get(url).cookies.get_dict() == {}
        assert not session.cookies


def test_case_insensitive_dicts_are_made_as_ever(ours: Transport) -> None:
    made = CaseInsensitiveDict({"A": "1", "b": "2"}, c="3")
    again = CaseInsensitiveDict(made)
    copied = again.copy()
    again["a"] = "4"

    assert list(made.items()) == [("A", "1"), ("b", "2"), ("c", "3")]
    assert list(again.items()) == [("a", "4"), ("b", "2"), ("c", "3")]
    assert copied == made
    assert CaseInsensitiveDict() == {}
    assert CaseInsensitiveDict([("X", "1")])["x"] == "1"


def test_our_answers_have_the_attributes_of_requests_and_urllib3(switch: Switch, upstream: Upstream) -> None:
    """Objects built without their __init__ would miss the attributes that a new version adds."""
    url = upstream.on("/", sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    switch.to("original")
    theirs = requests.get(url)
    switch.to("ours")
    mine = requests.get(url)

    assert vars(mine).keys() == vars(theirs).keys() == vars(Response()).keys() | {"connection"}
    for name in vars(theirs.raw):
        assert hasattr(mine.raw, name), name
        if name not in (
            "_fp",
            "_original_response",
            "_pool",
            "_decoded_buffer",
            "_sock_shutdown",
            "_retries",
            "headers",
        ):
            assert getattr(mine.raw, name) == getattr(theirs.raw, name), name
    assert isinstance(mine.raw, HTTPResponse)


def test_an_adapter_has_the_attributes_that_we_take_for_plain(ours: Transport) -> None:
    assert len(vars(HTTPAdapter())) == PLAIN_ATTRIBUTES


def test_a_pool_manager_is_made_when_it_is_asked_for(ours: Transport) -> None:
    adapter = HTTPAdapter(pool_connections=3, pool_maxsize=7)
    assert "poolmanager" not in vars(adapter)
    adapter.close()

    assert adapter.poolmanager.connection_pool_kw == {"maxsize": 7, "block": False}  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="'HTTPAdapter' object has no attribute 'nothing'"):
        _ = adapter.nothing  # type: ignore[attr-defined]
