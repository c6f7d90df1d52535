"""Connections are bounded and given out in turn; a reply never reaches the request that comes next."""

import gc
import random
import socket
import threading
import time
from typing import Any

import gevent
import pytest
import requests

from greenroom import deadline
from greenroom.waits.http.adapter import Transport

from .conftest import Switch
from .pools import SOON, hang, origin_of, wait_until
from .upstream import Received, Upstream, answer, sends


def test_at_most_so_many_connections_are_open_and_who_waits_is_served_in_turn(
    switch: Switch, upstream: Upstream
) -> None:
    transport = switch.to("ours", connections=1)
    assert transport is not None
    go = threading.Event()

    def script(sock: Any, request: Received) -> bool:
        go.wait(SOON)
        sock.sendall(answer(request.target.encode()))
        return True

    upstream.on("/", script)
    done: list[int] = []

    def ask(number: int) -> None:
        requests.get(f"{upstream.url}/?{number}", timeout=SOON)
        done.append(number)

    asking = [gevent.spawn(ask, number) for number in range(8)]
    wait_until(lambda: upstream.requests)
    origin = origin_of(transport)
    assert len(origin.waiting) == 7
    go.set()
    gevent.joinall(asking, timeout=SOON, raise_error=True)

    assert [int(each.target.partition("?")[2]) for each in upstream.requests] == list(range(8))
    assert done == list(range(8))
    assert upstream.connections == 1
    assert (origin.open, len(origin.waiting), len(origin.idle)) == (1, 0, 1)


def test_the_wait_for_a_connection_ends_with_the_timeout_to_connect(switch: Switch, upstream: Upstream) -> None:
    transport = switch.to("ours", connections=1)
    assert transport is not None
    first = gevent.spawn(requests.get, upstream.on("/", hang), timeout=SOON)
    wait_until(lambda: upstream.requests)

    with pytest.raises(requests.ConnectTimeout, match="no connection to .* came free in 0.05 s .1 open, .*UPSTREAM"):
        requests.get(upstream.url, timeout=(0.05, SOON))

    assert not origin_of(transport).waiting
    first.kill()
    assert requests.get(upstream.url + "/a", timeout=SOON).ok


def test_who_waits_is_not_given_a_connection_that_was_closed_behind_its_answer(
    switch: Switch, upstream: Upstream
) -> None:
    transport = switch.to("ours", connections=1)
    assert transport is not None

    def script(sock: Any, request: Received) -> bool:
        sock.send(answer(b"done"), getattr(socket, "MSG_MORE", 0))  # goes out together with the end
        sock.shutdown(socket.SHUT_WR)
        return False

    url = upstream.on("/", script)
    asking = [gevent.spawn(requests.post, url, timeout=SOON) for _ in range(5)]

    assert all(each.get(timeout=SOON).content == b"done" for each in asking)
    assert upstream.connections == 5
    assert origin_of(transport).open <= 1


@pytest.mark.parametrize("waits_for", ["an answer", "a connection"])
def test_what_was_computed_before_is_not_taken_off_a_timeout(
    waits_for: str, switch: Switch, upstream: Upstream
) -> None:
    switch.to("ours", connections=1)
    requests.get(upstream.url)  # a connection is kept: opening one would let the loop turn
    url = upstream.on("/hang", hang)
    first = gevent.spawn(requests.get, url, timeout=SOON) if waits_for == "a connection" else None
    wait_until(lambda: len(upstream.requests) == 2 or first is None)
    time.sleep(0.5)  # nothing is patched here: the loop stands still, and its time with it

    started = time.monotonic()
    with pytest.raises(requests.Timeout):
        requests.get(url, timeout=0.3)

    assert time.monotonic() - started > 0.29
    if first is not None:
        first.kill()


def test_who_gives_up_waiting_leaves_the_place_to_the_next(switch: Switch, upstream: Upstream) -> None:
    transport = switch.to("ours", connections=1)
    assert transport is not None
    release = threading.Event()

    def script(sock: Any, request: Received) -> bool:
        release.wait(SOON)
        sock.sendall(answer(b"done"))
        return True

    url = upstream.on("/slow", script)
    first = gevent.spawn(requests.get, url, timeout=SOON)
    wait_until(lambda: upstream.requests)
    killed = [gevent.spawn(requests.get, upstream.url + "/a", timeout=SOON) for _ in range(3)]
    last = gevent.spawn(requests.get, upstream.url + "/b", timeout=SOON)
    wait_until(lambda: len(origin_of(transport).waiting) == 4)

    killed[0].kill()
    release.set()
    killed[1].kill(block=False)  # perhaps in the turn in which it is given the connection
    killed[2].kill(block=False)

    assert last.get(timeout=SOON).json()["target"] == "/b"
    assert first.get(timeout=SOON).ok
    wait_until(lambda: not origin_of(transport).waiting)
    assert origin_of(transport).open == len(origin_of(transport).idle)


def test_an_answer_that_nobody_reads_gives_its_place_back(switch: Switch, upstream: Upstream) -> None:
    transport = switch.to("ours", connections=1)
    assert transport is not None
    url = upstream.on("/", sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", then="hang"))

    response = requests.get(url, stream=True)
    assert origin_of(transport).open == 1
    del response
    gc.collect()

    assert origin_of(transport).open == 0


def test_an_answer_that_is_closed_half_read_closes_its_connection(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", sends(answer(b"x" * 100)[:-50], b"x" * 50, pause_seconds=0.02))
    for _ in range(3):
        with requests.get(url, stream=True) as response:
            response.raw.read(10)
        response.raw.release_conn()

    assert upstream.connections == 3
    assert origin_of(ours).open == 0


def test_closing_while_another_greenlet_reads_ends_the_reading(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", then="hang"))
    response = requests.get(url, stream=True, timeout=SOON)
    reading = gevent.spawn(lambda: response.raw.read(50))
    gevent.sleep(0.02)

    response.raw._connection.close()

    with pytest.raises(Exception, match="the connection was closed"):
        reading.get(timeout=SOON)
    assert origin_of(ours).open == 0


def test_reading_can_be_shut_down_from_elsewhere(adapter: str, upstream: Upstream) -> None:
    url = upstream.on("/", sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", then="hang"))
    response = requests.get(url, stream=True, timeout=SOON)

    assert response.raw.connection.sock.getpeername() == ("127.0.0.1", upstream.port)
    response.raw.shutdown()

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = response.content


def test_a_wait_that_is_broken_off_closes_its_connection(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", hang)

    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        requests.get(url)

    assert origin_of(ours).open == 0


def test_no_reply_reaches_another_request(switch: Switch, upstream: Upstream, bounded: None) -> None:
    """A thousand requests that each want an answer of their own, cut at random moments by all that cuts."""
    transport = switch.to("ours", connections=8)
    assert transport is not None
    chance = random.Random(4)

    def script(sock: Any, request: Received) -> bool:
        nonce = request.target.partition("?")[2].encode()
        kind = nonce[-1] % 5
        body = nonce * 20
        whole = answer(body, "200 OK", f"X-Nonce: {nonce.decode()}")
        if kind == 0:
            pieces = [whole]
        elif kind == 1:
            pieces = [whole[:30], whole[30:]]
        elif kind == 2:
            pieces = [whole[: -len(body)], body[:7], body[7:]]
        elif kind == 3:
            pieces = [b"HTTP/1.1 200 OK\r\nX-Nonce: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % nonce]
            pieces += [b"%x\r\n%b\r\n" % (len(nonce), nonce) for _ in range(20)] + [b"0\r\n\r\n"]
        else:
            pieces = [whole[:-3]]  # and what is missing never comes
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.001)
            sock.sendall(piece)
        return kind != 4

    upstream.on("/", script)
    answered = cut = 0

    def ask(number: int) -> None:
        nonlocal answered, cut
        nonce = f"{number:06}"
        how = chance.randrange(4)
        moment = chance.choice([0.0005, 0.002, 0.005, 0.02, 2.0])
        try:
            with deadline.budget(moment if how == 0 else SOON) as record, gevent.Timeout(moment if how == 1 else SOON):
                if how == 2:
                    gevent.spawn_later(moment, record.cut, "the test")
                timeout = moment if how == 3 else SOON
                response = requests.get(f"{upstream.url}/?{nonce}", timeout=timeout, stream=number % 3 == 0)
                assert response.headers["X-Nonce"] == nonce
                if number % 9:
                    assert response.content == nonce.encode() * 20
            answered += 1
        except (requests.RequestException, gevent.Timeout, TimeoutError):
            cut += 1

    numbers = iter(range(1000))

    def client() -> None:
        for number in numbers:
            ask(number)

    gevent.joinall([gevent.spawn(client) for _ in range(16)], timeout=100, raise_error=True)
    gc.collect()

    assert answered + cut == 1000
    assert answered > 200
    assert cut > 200
    wait_until(lambda: origin_of(transport).open == len(origin_of(transport).idle))
    assert not origin_of(transport).waiting
