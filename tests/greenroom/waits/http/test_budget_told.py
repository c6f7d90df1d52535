"""The upstream is told what is left of a request's budget; and after a fault the next request is served."""

import io
import socket
import threading
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from greenroom import deadline
from greenroom.waits.http.adapter import BUDGET_HEADER, Transport

from .conftest import Switch
from .pools import SHORT_SECONDS, SOON, origin_of
from .upstream import Upstream, answer, echo, sends

pytestmark = pytest.mark.usefixtures("bounded")


def test_the_upstream_is_told_what_is_left(ours: Transport, upstream: Upstream) -> None:
    with deadline.budget(5.0):
        response = requests.get(upstream.url)

    assert 0 < int(response.json()["fields"][BUDGET_HEADER.lower()]) <= 5000
    assert BUDGET_HEADER not in response.request.headers


class OwnAdapter(HTTPAdapter):
    """As applications write them: it leaves a note in the request."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.noted = "something"  # type: ignore[attr-defined]
        return super().send(request, *args, **kwargs)

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        assert request.noted == "something"  # type: ignore[attr-defined]
        return super().get_connection_with_tls_context(request, *args, **kwargs)


@pytest.mark.parametrize(
    "way", ["an adapter of one's own", "Retry", "a file with Retry", "a proxy", "a pool that blocks"]
)
def test_the_upstream_is_told_what_is_left_whichever_way_it_is_asked(
    way: str, ours: Transport, upstream: Upstream
) -> None:
    mounted: dict[str, HTTPAdapter] = {
        "an adapter of one's own": OwnAdapter(),
        "Retry": HTTPAdapter(max_retries=Retry(2)),
        "a file with Retry": HTTPAdapter(max_retries=Retry(2)),
        "a pool that blocks": HTTPAdapter(pool_block=True),
    }
    with requests.Session() as session:
        session.mount("http://", mounted.get(way, HTTPAdapter()))
        body = io.BytesIO(b"body") if way == "a file with Retry" else None
        proxies = {"http": upstream.url} if way == "a proxy" else None
        with deadline.budget(5.0):
            response = session.post(upstream.url, data=body, proxies=proxies, headers={"X-Mine": "1"})

    fields = response.json()["fields"]
    assert 0 < int(fields[BUDGET_HEADER.lower()]) <= 5000
    assert fields["x-mine"] == "1"
    assert BUDGET_HEADER not in response.request.headers


def test_an_error_has_the_request_that_was_made(ours: Transport, upstream: Upstream) -> None:
    prepared = requests.Request("GET", upstream.on("/", sends(then="close"))).prepare()

    with requests.Session() as session, deadline.budget(5.0):
        session.mount("http://", OwnAdapter())
        with pytest.raises(requests.ConnectionError) as caught:
            session.send(prepared)

    assert caught.value.request is prepared


@pytest.mark.parametrize("case", ["no budget", "the caller's own", "switched off"])
def test_the_upstream_is_told_nothing_else(case: str, switch: Switch, upstream: Upstream) -> None:
    switch.to("ours", tells_budget=case != "switched off")
    headers = {BUDGET_HEADER: "7"} if case == "the caller's own" else {}

    if case == "no budget":
        response = requests.get(upstream.url, headers=headers)
    else:
        with deadline.budget(5.0):
            response = requests.get(upstream.url, headers=headers)

    assert response.json()["fields"].get(BUDGET_HEADER.lower()) == headers.get(BUDGET_HEADER)


def test_clean_up_may_still_ask(ours: Transport, upstream: Upstream) -> None:
    with deadline.budget(0.0), deadline.shield():
        assert requests.get(upstream.url, timeout=SOON).ok


# Faults: each is an error that is bounded and clear, and the next request is served.


def test_after_every_fault_the_upstream_is_served_again(ours: Transport, upstream: Upstream) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    fields = b"".join(b"X-%d: 1\r\n" % number for number in range(1000))
    faults = [
        sends(b"HTTP/1.1 200 OK\r\nX-A", then="reset"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", then="reset"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", then="close"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc"),
        sends(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"),
        sends(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000, then="hang"),
        sends(chunked + b"ffffffffffffffff\r\n" + b"a" * 1000, then="hang"),
        sends(chunked + b"f" * 100_000, then="hang"),
        sends(chunked + b"5\r\nhello\r\n", then="hang"),
        sends(b"\x16\x03\x01 this is not HTTP", then="hang"),
        sends(b"HTTP/1.1 100 Continue\r\n\r\n" * 50, then="hang"),
        sends(then="hang"),
        sends(then="reset"),
    ]
    errors = []

    for fault in faults:
        upstream.on("/", fault)
        try:
            with deadline.budget(SHORT_SECONDS):
                assert requests.get(upstream.url, timeout=SOON).content == b"ab"
        except requests.RequestException as exc:
            errors.append(str(exc))
        upstream.on("/", echo)
        assert requests.get(upstream.url, timeout=SOON).ok

    assert len(errors) >= len(faults) - 1
    assert all(len(error) < 500 for error in errors)
    assert origin_of(ours).open == len(origin_of(ours).idle) == 1


def test_an_upstream_that_is_back_is_served_at_once(ours: Transport) -> None:
    first = Upstream()
    url = first.url
    assert requests.get(url, timeout=SOON).ok
    first.close()
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=SOON)

    listener = socket.create_server(("127.0.0.1", first.port))

    def serve() -> None:
        sock, _ = listener.accept()
        sock.recv(1000)
        sock.sendall(answer(b"back"))
        sock.close()

    thread: Any = threading.Thread(target=serve)
    thread.start()

    assert requests.get(url, timeout=SOON).text == "back"
    thread.join(SOON)
    listener.close()
