"""The ways of older gunicorns, tried beside the installed one. The matrix serves with them."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http import wsgi

from greenroom.errors import GreenroomError
from greenroom.worker import gunicorns


class Arbiter:
    """An arbiter of gunicorn 23: signals are in a list, and a pipe wakes its loop."""

    def __init__(self) -> None:
        self.SIG_QUEUE: list[int] = []
        self.LISTENERS = ["listener"]
        self.woken = 0
        self.killed: list[int] = []

    def wakeup(self) -> None:
        self.woken += 1

    def kill_workers(self, number: int) -> None:
        self.killed.append(number)


class Sock:
    def __init__(self) -> None:
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data


def request(version: tuple[int, int] = (1, 1), method: str = "GET", headers: Any = ()) -> Any:
    return SimpleNamespace(version=version, method=method, headers=headers, should_close=lambda: False)


def test_gunicorn_that_is_too_old_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gunicorns, "installed_version", lambda _: "22.0.0")

    with pytest.raises(GreenroomError, match=r"gunicorn 22\.0\.0 is too old .* pip install 'gunicorn>=23\.0'"):
        gunicorns.refuse_older()


@pytest.mark.parametrize("number", ["23.0.0", "24.0.0", "27.0.1", "99.0"])
def test_gunicorn_of_the_matrix_and_newer_ones_are_not_refused(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setattr(gunicorns, "installed_version", lambda _: number)

    gunicorns.refuse_older()


def test_signals_are_queued_as_gunicorn_23_does() -> None:
    server = Arbiter()

    gunicorns.queue_signal(server, signal.SIGHUP)

    assert (server.SIG_QUEUE, server.woken, server.killed) == ([signal.SIGHUP], 1, [])


def test_stopping_server_that_listens_to_nobody_is_stopped_at_once_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gunicorns, "LISTENS_WHILE_IT_STOPS", False)
    server = Arbiter()
    gunicorns.queue_signal(server, signal.SIGINT)
    before = list(server.killed)
    server.LISTENERS = []

    gunicorns.queue_signal(server, signal.SIGTERM)
    gunicorns.queue_signal(server, signal.SIGQUIT)

    assert (before, server.killed) == ([], [signal.SIGQUIT])


@pytest.mark.parametrize(
    ("value", "expected"), [("off", False), (False, False), (True, True), ("v1", True), ("auto", True)]
)
def test_proxy_protocol_is_a_word_or_yes_or_no(value: Any, expected: bool) -> None:
    assert gunicorns.has_proxy_protocol(SimpleNamespace(proxy_protocol=value)) is expected


@pytest.mark.parametrize(
    ("allowed", "expected"), [(["10.0.0.1"], True), (["10.0.0.2"], False), (["*"], True), ([], False)]
)
def test_addresses_of_proxies_are_compared_where_they_are_no_networks(allowed: list[str], expected: bool) -> None:
    assert gunicorns.is_trusted("10.0.0.1", SimpleNamespace(forwarded_allow_ips=allowed)) is expected


@pytest.mark.parametrize(
    ("version", "value", "expected"),
    [((1, 1), "100-Continue", True), ((1, 0), "100-continue", False), ((1, 1), "tea", False)],
)
def test_client_that_waits_to_be_asked_is_known_by_its_header(
    version: tuple[int, int], value: str, expected: bool
) -> None:
    assert gunicorns.take_continue(request(version, headers=[("EXPECT", value)])) is expected


def test_early_hints_of_gunicorns_that_have_none() -> None:
    sock = Sock()
    send = gunicorns._make_early_hints(request(), sock, SimpleNamespace(headers_sent=False))

    send([("Link", "</a.css>; rel=preload"), (b"Link", b"</b.js>; rel=preload")])

    assert sock.sent == (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n\r\n"
    )


@pytest.mark.parametrize(("version", "is_sent"), [((1, 0), False), ((1, 1), True)])
def test_early_hints_do_not_go_where_they_would_be_taken_for_the_answer(
    version: tuple[int, int], is_sent: bool
) -> None:
    sock = Sock()

    gunicorns._make_early_hints(request(version), sock, SimpleNamespace(headers_sent=is_sent))([("Link", "</a.css>")])

    assert sock.sent == b""


@pytest.mark.parametrize("header", [("Link\r\nX", "a"), ("Link", "a\r\nX: b"), ("", "a")])
def test_early_hints_are_no_way_to_write_another_header(header: tuple[str, str]) -> None:
    sock = Sock()
    send = gunicorns._make_early_hints(request(), sock, SimpleNamespace(headers_sent=False))

    with pytest.raises((gunicorns.InvalidResponseHeader, gunicorns.InvalidResponseHeaderName)):
        send([header])
    assert sock.sent == b""


@pytest.mark.parametrize(
    ("method", "status", "is_left_out", "length"),
    [
        ("GET", "200 OK", False, 3),
        ("HEAD", "200 OK", True, 3),
        ("GET", "304 Not Modified", True, 3),
        ("GET", "204 No Content", True, None),
    ],
)
def test_bodies_that_answers_must_not_have_are_left_out(
    monkeypatch: pytest.MonkeyPatch, method: str, status: str, is_left_out: bool, length: int | None
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(wsgi.Response, "write", lambda self, data: written.append(data))
    monkeypatch.setattr(wsgi.Response, "send_headers", lambda self: None)
    response = gunicorns._OlderResponse(request(method=method), None, SimpleNamespace())
    write = response.start_response(status, [("Content-Length", "3"), ("X-Tea", "green")])

    write(b"tea")

    assert response._omits_body is is_left_out
    assert written == ([] if is_left_out else [b"tea"])
    assert response.response_length == length
    assert dict(response.headers) == {"X-Tea": "green"} | ({"Content-Length": "3"} if length else {})
