"""What is sent again over another connection, and what is not."""

import socket
from typing import Any

import pytest
import requests

from greenroom.waits.http.adapter import Transport

from ...conftest import ManualClock
from .conftest import SURE_SECONDS
from .pools import SOON, origin_of, pools_of
from .upstream import Received, Upstream, answer, reset, sends


def closes_kept(upstream: Upstream, how: str) -> Any:
    """Answers the first request of a connection; closes it when the next one has come."""

    def script(sock: Any, request: Received) -> bool:
        if sum(each.connection == request.connection for each in upstream.requests) == 1:
            sock.sendall(answer(b""))
            return True
        if how == "reset":
            reset(sock)
        if how == "half":
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-")
        return False

    return script


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_request_on_a_stale_connection_is_sent_again(
    method: str, how: str, ours: Transport, upstream: Upstream
) -> None:
    url = upstream.on("/", closes_kept(upstream, how))
    requests.get(url)

    assert requests.request(method, url, data="body" * 20_000 if method == "OPTIONS" else None, timeout=SOON).ok

    assert [(each.method, each.connection) for each in upstream.requests] == [("GET", 1), (method, 1), (method, 2)]
    assert upstream.requests[1].body == upstream.requests[2].body
    assert origin_of(ours).open == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_what_may_have_been_done_is_not_done_again(method: str, ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", closes_kept(upstream, "close"))
    with requests.Session() as session:
        session.get(url)

        with pytest.raises(requests.ConnectionError, match="Remote end closed connection without response"):
            session.request(method, url, data="order")

    assert [each.method for each in upstream.requests] == ["GET", method]
    assert origin_of(ours).open == 0


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_what_may_not_be_repeated_goes_over_a_new_connection(method: str, ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", closes_kept(upstream, "reset"))
    for _ in range(3):
        requests.get(url)
        assert requests.request(method, url, data="order").ok
        with requests.Session() as session:
            assert session.request(method, url, data="order").ok

    assert [each.method for each in upstream.requests if each.method != "GET"] == [method] * 6
    assert origin_of(ours).open == 1  # a new one takes the place of an old one


def test_a_session_sends_what_may_not_be_repeated_over_its_own_last_connection(
    ours: Transport, upstream: Upstream, clock: ManualClock
) -> None:
    with requests.Session() as session:
        numbers = [session.get(upstream.url).json()["connection"], session.post(upstream.url).json()["connection"]]
        pools_of(ours).now = clock.now
        origin_of(ours).idle[0].idle_since = clock.now()
        clock.advance(SURE_SECONDS)
        numbers.append(session.post(upstream.url).json()["connection"])

    assert numbers == [1, 1, 2]


def test_a_408_that_crosses_a_request_is_not_its_answer(ours: Transport, upstream: Upstream) -> None:
    """Some say so when they close a connection that was idle."""
    late = answer(b"", "408 Request Timeout", "Connection: close")

    def script(sock: socket.socket, request: Received) -> bool:
        is_first = sum(each.connection == request.connection for each in upstream.requests) == 1
        sock.sendall(answer(b"right") if is_first else late)
        return is_first

    url = upstream.on("/", script)

    assert [requests.get(url).content for _ in range(2)] == [b"right", b"right"]
    assert requests.get(upstream.on("/408", late)).status_code == 408


def test_what_cannot_be_sent_again_is_not(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", closes_kept(upstream, "close"))
    requests.get(url)

    with pytest.raises(requests.ConnectionError):
        requests.options(url, data=iter([b"a"]))

    assert len(upstream.requests) == 2


def test_what_was_answered_in_part_is_not_asked_again(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", closes_kept(upstream, "half"))
    requests.get(url)

    assert requests.get(url).headers == {}  # as http.client has it

    assert len(upstream.requests) == 2
    assert origin_of(ours).open == 0


def test_a_new_connection_that_fails_is_not_tried_again(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", sends(then="close"))

    with pytest.raises(requests.ConnectionError):
        requests.get(url)

    assert len(upstream.requests) == 1
