"""Session.request and requests.get() in one step: what comes out is what ever came out, and nobody is passed over."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest, Response
from requests.sessions import Session
from requests.structures import CaseInsensitiveDict

from greenroom.waits.http.adapter import Transport
from greenroom.waits.http.fast_path import is_untouched

from .conftest import ADAPTERS, Switch
from .upstream import Upstream, answer

# As they were before a test replaced anything.
ORIGINALS: dict[tuple[Any, str], Any] = {
    (Session, "send"): Session.send,
    (Session, "get_adapter"): Session.get_adapter,
    (Session, "prepare_request"): Session.prepare_request,
    (Session, "merge_environment_settings"): Session.merge_environment_settings,
    (HTTPAdapter, "send"): HTTPAdapter.send,
    (HTTPAdapter, "build_response"): HTTPAdapter.build_response,
    (PreparedRequest, "prepare"): PreparedRequest.prepare,
    (PreparedRequest, "prepare_url"): PreparedRequest.prepare_url,
    (PreparedRequest, "prepare_headers"): PreparedRequest.prepare_headers,
    (requests.sessions, "merge_setting"): requests.sessions.merge_setting,
    (requests.sessions, "dispatch_hook"): requests.sessions.dispatch_hook,
}


class Steps:
    """The requests that went through `HTTPAdapter.send`, so not in one step."""

    def __init__(self, transport: Transport, patch: pytest.MonkeyPatch) -> None:
        self.urls: list[str] = []
        send = transport.send

        def noted(adapter: Any, request: Any, *args: Any) -> Any:
            self.urls.append(request.url)
            return send(adapter, request, *args)

        patch.setattr(transport, "send", noted)


@pytest.fixture
def patch(switch: Switch) -> Iterator[pytest.MonkeyPatch]:
    """A monkeypatch that is undone before the switch, which puts back the functions it found."""
    with pytest.MonkeyPatch.context() as made:
        yield made


@pytest.fixture
def steps(ours: Transport, patch: pytest.MonkeyPatch) -> Steps:
    return Steps(ours, patch)


def with_session(**settings: Any) -> Session:
    session = Session()
    for name, value in settings.items():
        setattr(session, name, value)
    return session


def unchanged(response: Response, **_: Any) -> Response:
    return response


USUAL: dict[str, Callable[[str], Any]] = {
    "bare": lambda url: requests.get(url, timeout=30),
    "bare, with fields": lambda url: requests.get(url, headers={"X-A": "1", "Accept": None}, timeout=30),
    "head": lambda url: requests.head(url, timeout=30),
    "any method's function": lambda url: requests.request("get", url),
    "session": lambda url: Session().get(url, timeout=(5, 30)),
    "fields of the session": lambda url: with_session(headers=CaseInsensitiveDict({"X-A": "1"})).get(url),
    "without environment": lambda url: with_session(trust_env=False).get(url, verify=False),
    "streamed": lambda url: requests.get(url, stream=True),
    "not to be redirected": lambda url: requests.get(url, allow_redirects=False),
    "empty arguments": lambda url: requests.get(url, params={}, headers={}, data=b"", cookies={}, hooks={}),
}
UNUSUAL: dict[str, Callable[[str], Any]] = {
    "a query": lambda url: requests.get(url, params={"a": "1"}),
    "a body": lambda url: requests.post(url, data="a"),
    "cookies": lambda url: requests.get(url, cookies={"a": "1"}),
    "a login": lambda url: requests.get(url, auth=("user", "password")),
    "a hook": lambda url: requests.get(url, hooks={"response": unchanged}),
    "a session's login": lambda url: with_session(auth=("user", "password")).get(url),
    "a session's query": lambda url: with_session(params={"a": "1"}).get(url),
    "a session's hook": lambda url: with_session(hooks={"response": [unchanged]}).get(url),
    "fields that are bytes": lambda url: requests.get(url, headers={"X-A": b"1"}),
    "fields that are pairs": lambda url: requests.get(url, headers=()),
    "an URL to be quoted": lambda url: requests.get(url + "/a b"),
    "a class of sessions": lambda url: type("Own", (Session,), {})().get(url),
}


def seen(response: Response) -> dict[str, Any]:
    """All that a caller can see of it, but for what is another one each time."""
    request: Any = response.request
    raw: Any = response.raw
    fields = {name: value for name, value in vars(response).items() if name not in ("raw", "elapsed", "connection")}
    return fields | {
        "headers": list(response.headers.items()),
        "cookies": response.cookies.get_dict(),
        "content": response.json()["fields"] if response.content else b"",
        "request": {**vars(request), "headers": list(request.headers.items()), "_cookies": request._cookies.get_dict()},
        "connection": type(response.connection),
        "raw": (raw.status, raw.closed, raw.tell(), raw.length_remaining, raw.read(), list(raw.headers.items())),
        "_content": None,
        "_content_consumed": None,
        "is elapsed": response.elapsed.total_seconds() > 0,
    }


@pytest.mark.parametrize("name", [*USUAL, *UNUSUAL])
def test_the_answer_is_the_same(name: str, switch: Switch, upstream: Upstream) -> None:
    answers = []
    for adapter in ADAPTERS:
        switch.to(adapter)
        answers.append(seen({**USUAL, **UNUSUAL}[name](upstream.url + "/a")))

    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", USUAL)
def test_a_usual_call_takes_one_step(name: str, steps: Steps, upstream: Upstream) -> None:
    assert USUAL[name](upstream.url + "/a").ok
    assert steps.urls == []


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_call_goes_the_long_way(name: str, steps: Steps, upstream: Upstream) -> None:
    assert UNUSUAL[name](upstream.url + "/a").ok
    assert len(steps.urls) == 1


@pytest.mark.parametrize("way", ["bare", "session"])
@pytest.mark.parametrize(("owner", "name"), ORIGINALS, ids=lambda it: it if isinstance(it, str) else it.__name__)
def test_who_replaced_a_part_of_requests_is_called(
    owner: Any, name: str, way: str, ours: Transport, upstream: Upstream, patch: pytest.MonkeyPatch
) -> None:
    called = []
    now = getattr(owner, name)

    def instrumented(*args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return now(*args, **kwargs)

    patch.setattr(owner, name, instrumented)
    if name == "build_response":  # of plain answers ours makes a response of its own, and not through this
        patch.setattr(HTTPAdapter, "send", ORIGINALS[HTTPAdapter, "send"])

    assert USUAL[way](upstream.url + "/a").ok
    assert called


@pytest.mark.parametrize("name", ["send", "get_adapter", "prepare_request", "merge_environment_settings"])
def test_a_method_of_a_sessions_own_is_called(name: str, ours: Transport, upstream: Upstream) -> None:
    session = Session()
    method = getattr(session, name)
    called = []
    setattr(session, name, lambda *args, **kwargs: called.append(name) or method(*args, **kwargs))

    assert session.get(upstream.url).ok
    assert called == [name]


def test_an_attribute_of_a_sessions_own_changes_nothing(steps: Steps, upstream: Upstream) -> None:
    assert with_session(base_url="x").get(upstream.url + "/a").ok
    assert steps.urls == []


@pytest.mark.parametrize("name", ["Session", "default_headers", "HTTPAdapter"])
def test_what_bare_calls_are_made_of_can_be_replaced(
    name: str, ours: Transport, upstream: Upstream, patch: pytest.MonkeyPatch
) -> None:
    called = []
    now = getattr(requests.sessions, name)
    patch.setattr(requests.sessions, name, lambda *args: called.append(name) or now(*args))

    assert requests.get(upstream.url).ok
    assert called


def test_bare_calls_name_the_program_as_it_wants_to_be_named(
    adapter: str, upstream: Upstream, patch: pytest.MonkeyPatch
) -> None:
    patch.setattr(requests.utils, "default_user_agent", lambda: "mine/1")

    assert requests.get(upstream.url).json()["fields"]["user-agent"] == "mine/1"


def test_what_a_call_does_to_its_request_and_answer_stays_with_it(adapter: str, upstream: Upstream) -> None:
    session = Session()
    for ask in (requests, session):
        first: Any = ask.get(upstream.url)
        first.request.headers["X-Left"] = "behind"
        first.request.hooks["response"].append(len)
        first.headers["X-Left"] = "behind"
        first.connection.close()
        second = ask.get(upstream.url)

        assert "x-left" not in second.json()["fields"]
        assert "X-Left" not in second.headers
        assert "X-Left" not in second.request.headers
        assert second.request.hooks == {"response": []}


def test_fields_of_a_session_that_change_are_sent_as_they_are(adapter: str, upstream: Upstream) -> None:
    session = Session()
    sent = []
    for value in ("1", "2", None):
        session.headers["X-A"] = value  # type: ignore[assignment]
        sent.append(session.get(upstream.url).json()["fields"].get("x-a"))

    assert sent == ["1", "2", None]


@pytest.mark.parametrize("way", ["bare", "session"])
def test_redirects_take_cookies_along(way: str, adapter: str, upstream: Upstream) -> None:
    upstream.on("/a", answer(b"x", "302 Found", "Location: /b", "Set-Cookie: c=1"))

    response = USUAL[way](upstream.url + "/a")

    assert response.json()["fields"]["cookie"] == "c=1"
    assert [one.status_code for one in response.history] == [302]
    assert response.history[0].cookies.get_dict() == {"c": "1"}


def test_cookies_of_a_session_are_kept_and_sent(adapter: str, upstream: Upstream) -> None:
    upstream.on("/a", answer(b"x", "200 OK", "Set-Cookie: c=1"))
    session = Session()

    session.get(upstream.url + "/a")

    assert session.cookies.get_dict() == {"c": "1"}
    assert session.get(upstream.url).json()["fields"]["cookie"] == "c=1"


@pytest.mark.parametrize("way", ["bare", "session"])
def test_a_redirect_that_is_not_followed_names_the_next(way: str, adapter: str, upstream: Upstream) -> None:
    upstream.on("/a", answer(b"x", "302 Found", "Location: /b"))
    ask: Any = requests if way == "bare" else Session()

    response = ask.get(upstream.url + "/a", allow_redirects=False)

    assert response.next.url == upstream.url + "/b"
    assert response.history == []
    assert response.content == b"x"


def test_certificates_that_the_environment_names_count(
    adapter: str, tls_upstream: Callable[..., Upstream], certificate: tuple[str, str], patch: pytest.MonkeyPatch
) -> None:
    url = tls_upstream().url
    patch.setenv("REQUESTS_CA_BUNDLE", certificate[0])

    assert requests.get(url).ok
    with pytest.raises(requests.exceptions.SSLError):
        with_session(trust_env=False).get(url)


@pytest.mark.parametrize("ask", [requests.get, Session().get], ids=["bare", "session"])
def test_an_unknown_argument_is_the_same_error(ask: Any, switch: Switch) -> None:
    errors = []
    for adapter in ADAPTERS:
        switch.to(adapter)
        with pytest.raises(TypeError) as caught:
            ask("http://127.0.0.1:1", colour="blue")
        errors.append(str(caught.value))

    assert errors[0] == errors[1]


def test_the_functions_look_as_they_did(switch: Switch) -> None:
    looks = []
    for adapter in ADAPTERS:
        switch.to(adapter)
        looks.append(
            [(inspect.signature(it), it.__doc__, it.__qualname__) for it in (Session.request, requests.request)]
        )

    assert looks[0] == looks[1]


def test_what_was_wrapped_before_is_noticed(patch: pytest.MonkeyPatch) -> None:
    assert is_untouched()
    send: Any = Session.send
    patch.setattr(Session, "send", lambda *args, **kwargs: send(*args, **kwargs))

    assert not is_untouched()


def test_a_hook_at_a_session_that_was_used_without_is_called(ours: Transport, upstream: Upstream) -> None:
    session = Session()
    session.get(upstream.url)
    seen_by_hook: list[Any] = []
    session.hooks["response"].append(lambda response, **_: seen_by_hook.append(response))

    response = session.get(upstream.url)

    assert seen_by_hook == [response]


def test_a_bare_call_in_a_hook_of_another_is_one_of_its_own(adapter: str, upstream: Upstream) -> None:
    inner: list[Response] = []

    def ask(*_: Any, **__: Any) -> None:
        inner.append(requests.get(upstream.url + "/inner"))

    requests.get(upstream.url, hooks={"response": ask})

    assert [one.json()["target"] for one in inner] == ["/inner"]
