"""Our adapter's requests are, byte for byte, those of `requests` with its own; and so is all that it does besides."""

import atexit
import io
import pickle
import re
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3.filepost
from requests.auth import HTTPDigestAuth

from .conftest import ADAPTERS, Switch
from .upstream import Received, Upstream, answer


def pieces() -> Any:
    yield b"one"
    yield b""
    yield b"two"


FILE = tempfile.TemporaryFile()
atexit.register(FILE.close)
FILE.write(b"x" * 40_000)


def a_file() -> Any:
    FILE.seek(5)
    return FILE


CALLS: dict[str, Callable[[str, Any], Any]] = {
    "get": lambda url, ask: ask.get(url + "/a/b"),
    "no path": lambda url, ask: ask.get(url),
    "query": lambda url, ask: ask.get(url + "/a?b=c&d=%20e", params={"f": ["1", "2"], "g": "ä", "h": None}),
    "fragment": lambda url, ask: ask.get(url + "/a?b#c"),
    "dots": lambda url, ask: ask.get(url + "/a/../b/./c//d"),
    "unquoted": lambda url, ask: ask.get(url + "/a b/ü?q=<x>&%zz"),
    "empty query": lambda url, ask: ask.get(url + "/a?"),
    "credentials in the URL": lambda url, ask: ask.get(url.replace("//", "//user:p%40ss@") + "/a"),
    "localhost": lambda url, ask: ask.get(url.replace("127.0.0.1", "LocalHost") + "/a"),
    "bytes URL": lambda url, ask: ask.get((url + "/a").encode()),
    "form": lambda url, ask: ask.post(url + "/a", data={"b": "ü", "c": ["1", "2"]}),
    "json": lambda url, ask: ask.post(url + "/a", json={"b": [1, None, "ü"]}),
    "text": lambda url, ask: ask.post(url + "/a", data="grüße"),
    "bytes": lambda url, ask: ask.put(url + "/a", data=b"\0\xff" * 20_000),
    "bytearray": lambda url, ask: ask.put(url + "/a", data=bytearray(b"abc")),
    "memoryview": lambda url, ask: ask.put(url + "/a", data=memoryview(b"abc" * 9)),
    "closing": lambda url, ask: ask.get(url + "/a", headers={"Connection": "close"}),
    "empty body": lambda url, ask: ask.post(url + "/a", data=b""),
    "no body": lambda url, ask: ask.post(url + "/a"),
    "generator": lambda url, ask: ask.post(url + "/a", data=pieces()),
    "list of pieces": lambda url, ask: ask.post(url + "/a", data=iter([b"1", "zwölf"])),
    "file": lambda url, ask: ask.put(url + "/a", data=a_file()),
    "BytesIO": lambda url, ask: ask.put(url + "/a", data=io.BytesIO(b"abc")),
    "empty file": lambda url, ask: ask.put(url + "/a", data=io.BytesIO(b"")),
    "multipart": lambda url, ask: ask.post(url + "/a", files={"f": ("ü.txt", a_file(), "text/plain")}, data={"b": "1"}),
    "patch": lambda url, ask: ask.patch(url + "/a", json={}),
    "delete": lambda url, ask: ask.delete(url + "/a"),
    "delete with a body": lambda url, ask: ask.delete(url + "/a", data="x"),
    "options": lambda url, ask: ask.options(url + "/a"),
    "head": lambda url, ask: ask.head(url + "/a"),
    "another method": lambda url, ask: ask.request("PURGE", url + "/a"),
    "lower-case method": lambda url, ask: ask.request("get", url + "/a"),
    "own fields": lambda url, ask: ask.get(url + "/a", headers={"X-A": "1", "accept": "text/html", "User-Agent": None}),
    "bytes in fields": lambda url, ask: ask.get(url + "/a", headers={"X-A": b"J\xfcrgen", b"X-B": b"2"}),
    "no encoding": lambda url, ask: ask.get(url + "/a", headers={"Accept-Encoding": None}),
    "own Host": lambda url, ask: ask.get(url + "/a", headers={"Host": "elsewhere.example"}),
    "basic auth": lambda url, ask: ask.get(url + "/a", auth=("user", "päss")),
    "cookies": lambda url, ask: ask.get(url + "/a", cookies={"b": "2", "a": "1"}),
    "timeouts": lambda url, ask: ask.get(url + "/a", timeout=(5, 10)),
    "no timeouts": lambda url, ask: ask.get(url + "/a", timeout=(None, None)),
    "timeout object": lambda url, ask: ask.get(url + "/a", timeout=urllib3.Timeout(connect=5, read=5)),
    "total timeout": lambda url, ask: ask.get(url + "/a", timeout=urllib3.Timeout(total=5)),
}
MISTAKES: dict[str, Callable[[str, Any], Any]] = {
    "no scheme": lambda url, ask: ask.get("example.org/a"),
    "no host": lambda url, ask: ask.get("http:///a"),
    "bad host": lambda url, ask: ask.get("http://*.example.org/"),
    "bad port": lambda url, ask: ask.get("http://127.0.0.1:99999/"),
    "port that is a word": lambda url, ask: ask.get("http://127.0.0.1:port/"),
    "other scheme": lambda url, ask: ask.get("ftp://127.0.0.1/"),
    "line end in a field": lambda url, ask: ask.get(url, headers={"X-A": "1\r\nX-B: 2"}),
    "number in a field": lambda url, ask: ask.get(url, headers={"X-A": 1}),
    "no latin-1 in a field": lambda url, ask: ask.get(url, headers={"X-A": "世"}),
    "space in the method": lambda url, ask: ask.request("GE T", url),
    "line end in the method": lambda url, ask: ask.request("GET / HTTP/1.1\r\nX:", url),
    "no time to connect": lambda url, ask: ask.get(url, timeout=0),
    "negative timeout": lambda url, ask: ask.get(url, timeout=-1),
    "timeout that is a word": lambda url, ask: ask.get(url, timeout="1"),
    "timeout of three": lambda url, ask: ask.get(url, timeout=(1, 2, 3)),
    "timeout True": lambda url, ask: ask.get(url, timeout=True),
    "refused": lambda url, ask: ask.get("http://127.0.0.1:1/a?b", timeout=10),
    "no such name": lambda url, ask: ask.get("http://nowhere.invalid/a", timeout=10),
    "number as body": lambda url, ask: ask.post(url, data=5),
    "pieces that are none": lambda url, ask: ask.post(url, data=iter([1, 2])),
    "body that fails": lambda url, ask: ask.post(url, data=(1 / 0 for _ in range(1))),
    "body that times out": lambda url, ask: ask.post(url, data=(exec("raise OSError(5, 'disk')") for _ in range(1))),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore:Invalid character")
def test_a_request_is_sent_as_ever(
    name: str, switch: Switch, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib3.filepost, "choose_boundary", lambda: "a-boundary")
    seen = {}

    for adapter in ADAPTERS:
        switch.to(adapter)
        upstream.requests.clear()
        with requests.Session() as session:
            for ask in (requests, session):
                CALLS[name](upstream.url, ask)
        seen[adapter] = [(request.head, request.body) for request in upstream.requests]

    assert seen["ours"] == seen["original"]
    assert len(seen["ours"]) == 2


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_the_same_error(name: str, switch: Switch, upstream: Upstream) -> None:
    seen = {}

    for adapter in ADAPTERS:
        switch.to(adapter)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is compared
            MISTAKES[name](upstream.url, requests)
        error = caught.value
        reason = getattr(error.args[0], "reason", None) if error.args else None
        # Before 2.5 urllib3 named the connection's object; ours says what later versions do.
        text = re.split(r"[\"']<urllib3\.connection\.|[\"']HTTPS?Connection\(host", str(error))[0]
        seen[adapter] = (type(error), type(error.args[0]) if error.args else None, type(reason), text)

    assert seen["ours"] == seen["original"]


def test_redirects_are_followed_with_cookies_and_history(adapter: str, upstream: Upstream) -> None:
    upstream.on("/a", answer(b"see b", "302 Found", "Location: /b", "Set-Cookie: seen=a; Path=/"))
    upstream.on("/b", answer(b"", "307 Temporary Redirect", f"Location: {upstream.url}/c"))

    with requests.Session() as session:
        response = session.post(upstream.url + "/a", data={"x": "1"})

    assert response.json()["method"] == "GET"
    assert response.json()["fields"]["cookie"] == "seen=a"
    assert [(each.status_code, each.content) for each in response.history] == [(302, b"see b"), (307, b"")]
    assert session.cookies.get_dict() == {"seen": "a"}
    assert response.url == upstream.url + "/c"


def test_a_file_is_sent_again_after_a_redirect(adapter: str, upstream: Upstream) -> None:
    upstream.on("/a", answer(b"", "307 Temporary Redirect", "Location: /b"))

    response = requests.put(upstream.url + "/a", data=io.BytesIO(b"content"))

    assert response.json()["body"] == "content"


def test_too_many_redirects_are_given_up(adapter: str, upstream: Upstream) -> None:
    upstream.on("/a", answer(b"", "302 Found", "Location: /a"))

    with requests.Session() as session:
        session.max_redirects = 3
        with pytest.raises(requests.TooManyRedirects):
            session.get(upstream.url + "/a")

    assert len(upstream.requests) == 4


def test_redirects_that_are_not_followed_say_where_to(adapter: str, upstream: Upstream) -> None:
    upstream.on("/a", answer(b"", "302 Found", "Location: /b"))

    response = requests.get(upstream.url + "/a", allow_redirects=False)

    assert response.status_code == 302
    assert response.next is not None
    assert response.next.url == upstream.url + "/b"


def test_digest_authentication_asks_twice(adapter: str, upstream: Upstream) -> None:
    def script(sock: Any, request: Received) -> bool:
        if "authorization" in request.fields:
            sock.sendall(answer(b"in", "200 OK"))
        else:
            challenge = 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"'
            sock.sendall(answer(b"who?", "401 Unauthorized", challenge, "Set-Cookie: c=1"))
        return True

    response = requests.get(upstream.on("/a", script), auth=HTTPDigestAuth("user", "pass"))

    assert (response.status_code, response.content) == (200, b"in")
    assert upstream.requests[1].fields["authorization"].startswith('Digest username="user"')
    assert upstream.requests[1].fields["cookie"] == "c=1"


def test_hooks_see_and_replace_the_answer(adapter: str, upstream: Upstream) -> None:
    seen = []

    def hook(response: requests.Response, **kwargs: Any) -> requests.Response:
        seen.append((response.status_code, sorted(kwargs)))
        response.headers["X-Hooked"] = "yes"
        return response

    response = requests.get(upstream.url, hooks={"response": hook})

    assert seen == [(200, ["cert", "proxies", "stream", "timeout", "verify"])]
    assert response.headers["x-hooked"] == "yes"


def test_an_answer_can_be_pickled(adapter: str, upstream: Upstream) -> None:
    with requests.Session() as session:
        response = session.get(upstream.url + "/a")
        again = pickle.loads(pickle.dumps(response))
        same = pickle.loads(pickle.dumps(session))

    assert again.json() == response.json()
    assert again.cookies.get_dict() == {}
    assert same.get(upstream.url).ok


def test_elapsed_is_the_time_until_the_head(adapter: str, upstream: Upstream) -> None:
    response = requests.get(upstream.url)

    assert 0 < response.elapsed.total_seconds() < 10


def test_an_early_answer_to_a_large_upload_is_read(adapter: str, upstream: Upstream) -> None:
    """The upstream reads the head only, answers and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        sock.recv(1000)
        sock.sendall(answer(b"too large", "413 Content Too Large", "Connection: close"))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1_000_000):
            pass
        sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    response = requests.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", data=b"x" * 5_000_000, timeout=20)
    thread.join(20)
    listener.close()

    assert (response.status_code, response.text) == (413, "too large")
