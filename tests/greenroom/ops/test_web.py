"""The page's own server: everything in it is bounded, and who misbehaves harms only himself."""

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenroom.ops import web
from greenroom.ops.access import Access
from greenroom.ops.client import Client, OpsError
from greenroom.ops.history import History
from greenroom.ops.web import SCRIPTS, Board, Part, Web

TOKEN = "0123456789abcdef0123456789abcdef"


class Served:
    """A web server of fakes."""

    def __init__(self, token: str = "") -> None:
        self.board = Board()
        self.board.publish(b'{"number": 1}', b"greenroom_requests_total 1\n# EOF\n")
        part = Part(
            self.board,
            Access(token),
            stacks=lambda pid, request_id: {"id": request_id} if pid == 1 else None,
            everything=lambda: "all \N{GREEN HEART}",
            record=lambda: None,
            recording=lambda name: b"<p>saved" if name == "recording-1.html" else None,
            history=History(Path("/nowhere/history.sqlite3")),
        )
        self.web = Web(("127.0.0.1", 0), part)
        self.port = self.web.server_address[1]
        threading.Thread(target=self.web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.words = response.read()  # type: ignore[attr-defined]
        connection.close()
        return response

    def connect(self, head: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        client.sendall(head)
        return client


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.web.shutdown()
    made.web.server_close()


def test_each_script_that_the_page_names_is_served(served: Served) -> None:
    named = re.findall(r'<script src="([^"]+)"', served.ask("/").words.decode())  # type: ignore[attr-defined]

    types = {served.ask(path).headers["Content-Type"] for path in named}

    assert tuple(named) == SCRIPTS
    assert types == {"text/javascript; charset=utf-8"}


def watch(served: Served) -> socket.socket:
    client = served.connect(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while b"data: " not in received and b" 503 " not in received:
        received += client.recv(4096)
    client.settimeout(20)
    return client


@pytest.mark.parametrize(
    ("path", "status", "content_type"),
    [
        ("/", 200, "text/html; charset=utf-8"),
        ("/page.css", 200, "text/css; charset=utf-8"),
        ("/page.js", 200, "text/javascript; charset=utf-8"),
        ("/view", 200, "application/json"),
        ("/metrics", 200, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("/everything", 200, "text/plain; charset=utf-8"),
        ("/healthz", 200, "text/plain; charset=utf-8"),
        ("/request/1/a%2Fb", 200, "application/json"),
        ("/request/2/x", 504, "application/json"),
        ("/request/x/y", 504, "application/json"),
        ("/recordings/recording-1.html", 200, "text/html; charset=utf-8"),
        ("/recordings/..%2f..%2fetc%2fpasswd", 404, "text/plain; charset=utf-8"),
        ("/static/../access.py", 404, "text/plain; charset=utf-8"),
    ],
)
def test_each_path_says_what_it_is_and_forbids_the_rest(
    served: Served, path: str, status: int, content_type: str
) -> None:
    response = served.ask(path)

    assert (response.status, response.headers["Content-Type"]) == (status, content_type)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"] or path.startswith("/recordings/recording")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Python" not in response.headers["Server"]


def test_news_reach_all_who_watch(served: Served) -> None:
    watchers = [watch(served) for _ in range(3)]

    served.board.publish(b'{"number": 2}', b"# EOF\n")

    for each in watchers:
        received = b""
        while b'data: {"number": 2}\n\n' not in received:
            piece = each.recv(4096)
            assert piece
            received += piece
        each.close()


def test_watchers_and_connections_are_bounded_and_the_metrics_stay(served: Served) -> None:
    watchers = [watch(served) for _ in range(web.MOST_WATCHERS)]
    one_more = served.ask("/events")
    silent = [served.connect(b"GET /") for _ in range(web.MOST_CONNECTIONS - web.MOST_WATCHERS - 4)]

    assert one_more.status == 503
    assert served.ask("/metrics").status == 200
    for each in watchers + silent:
        each.close()


def test_a_head_without_end_and_a_body_that_lies_are_refused(served: Served) -> None:
    endless = served.connect(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n")
    assert b" 431 " in endless.recv(4096)
    endless.close()

    assert served.ask("/login", "POST", "token=x" + "y" * 10_000).status == 400
    assert served.ask("/", "DELETE").status == 501
    assert served.ask("/nothing", "POST").status == 404


def test_who_sends_a_byte_at_a_time_is_dismissed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "HEAD_SECONDS", 0.2)
    client = served.connect(b"GET /healthz HTTP/1.1\r\n")

    def dribble() -> None:
        for _ in range(200):
            client.sendall(b"X")
            time.sleep(0.05)

    with client, pytest.raises(OSError, match="[Bb]roken|reset"):
        dribble()

    assert served.web.heads == {}
    assert served.ask("/healthz", "HEAD").status == 200
    assert served.ask("/events", "HEAD").status == 200


def test_only_the_page_may_have_something_saved(served: Served) -> None:
    assert served.ask("/recordings", "POST").status == 403
    assert served.ask("/recordings", "POST", **{"X-Greenroom": "1", "Sec-Fetch-Site": "cross-site"}).status == 403
    assert served.ask("/recordings", "POST", **{"X-Greenroom": "1"}).status == 503, "nothing could be saved"


def test_who_guesses_tokens_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(TOKEN)
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)

    statuses = [served.ask("/view", Authorization=f"Bearer {guess}").status for guess in ("a", "b")]
    statuses.append(served.ask("/login", "POST", "token=c").status)

    assert statuses == [401, 401, 401]
    assert [seconds for seconds in waited if seconds == web.WRONG_TOKEN_SECONDS] == [web.WRONG_TOKEN_SECONDS] * 3
    assert served.web.wrong_tokens == 3
    served.web.shutdown()
    served.web.server_close()


def test_the_form_opens_the_page(served: Served) -> None:
    served.web.part.access = Access(TOKEN)

    shown = served.ask("/")
    signed_in = served.ask("/login", "POST", f"token={TOKEN}", **{"X-Forwarded-Proto": "https"})
    cookie = signed_in.headers["Set-Cookie"]
    page = served.ask("/", Cookie=cookie.partition(";")[0])

    assert (shown.status, b"Look inside" in shown.words) == (401, True)  # type: ignore[attr-defined]
    assert (signed_in.status, signed_in.headers["Location"]) == (303, "/")
    assert (shown.headers["Connection"], signed_in.headers["Connection"]) == (None, "close"), "closed only when said so"
    assert "Secure" in cookie
    assert b"Where the time goes" in page.words  # type: ignore[attr-defined]


def test_the_client_of_the_commands_tells_what_is_wrong(served: Served) -> None:
    address = ("127.0.0.1", served.port)

    assert Client(address, "").view() == {"number": 1}
    assert Client(("0.0.0.0", served.port), "").everything() == "all \N{GREEN HEART}"
    served.board.publish(b"[1, 2]", b"")
    with pytest.raises(OpsError, match="is no ops page"):
        Client(address, "").view()
    served.web.part.access = Access(TOKEN)
    with pytest.raises(OpsError, match="it asks for a token; set GREENROOM_OPS_TOKEN"):
        Client(address, "").view()
    with pytest.raises(OpsError, match="is another than the server's"):
        Client(address, TOKEN[::-1]).view()
    assert json.loads(served.ask("/view", Authorization=f"Bearer {TOKEN}").words) == [1, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200),
        ("?since=100&until=200", 200),
        ("?since=100&until=200&route=/a", 200),
        ("?since=200&until=100", 400),
        ("?since=nan&until=nan", 400),
        ("?since=-1&until=10", 400),
        ("?since=1&until=1e300", 400),
        ("?since=yesterday", 400),
    ],
)
def test_the_history_is_asked_for_by_times(served: Served, query: str, status: int) -> None:
    response = served.ask(f"/history{query}")

    assert response.status == status
    if status == 200:
        said = json.loads(response.words)  # type: ignore[attr-defined]
        assert said["since"] < said["until"]
