"""Connections are kept, shared, bounded and given out in turn; a reply never reaches the request that comes next."""

import gc
import os
import random
import socket
import threading
import time
from collections import Counter
from typing import Any

import gevent
import pytest
import requests

from greenroom import deadline
from greenroom.waits.http.adapter import Transport
from greenroom.waits.http.connection import Connection

from ...conftest import ManualClock
from .conftest import QUICK_SECONDS, SURE_SECONDS, Switch
from .upstream import Received, Upstream, answer, reset, sends

SOON = 20.0


def pools_of(transport: Transport) -> Any:
    assert transport.pools is not None
    return transport.pools


def origin_of(transport: Transport) -> Any:
    (origin,) = pools_of(transport).origins.values()
    return origin


def wait_until(condition: Any) -> None:
    give_up_at = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < give_up_at
        gevent.sleep(0.005)


def hang(sock: Any, request: Received) -> bool:
    sock.recv(1)
    return False


def test_sessions_and_bare_calls_share_one_connection(ours: Transport, upstream: Upstream) -> None:
    with requests.Session() as session:
        session.get(upstream.url + "/1")
    requests.get(upstream.url + "/2")
    with requests.get(upstream.url + "/3", stream=True) as response:
        assert response.json()["connection"] == 1
    requests.head(upstream.url + "/4")

    assert upstream.connections == 1
    assert (origin_of(ours).open, len(origin_of(ours).idle)) == (1, 1)


def test_the_connection_used_last_is_used_next(ours: Transport, upstream: Upstream) -> None:
    streams = [requests.get(upstream.url, stream=True) for _ in range(3)]  # each body is there, so one connection
    assert upstream.connections == 1
    assert streams[0].raw.connection is None
    slow = upstream.on("/slow", sends(answer(b"x" * 9)[:-4], b"xxxx", pause_seconds=0.02))
    streams = [requests.get(slow, stream=True) for _ in range(3)]

    assert upstream.connections == 3
    for stream in streams:
        assert stream.content
    assert {requests.get(upstream.url).json()["connection"] for _ in range(5)} == {3}


def test_idle_connections_are_closed(switch: Switch, upstream: Upstream) -> None:
    transport = switch.to("ours", idle_seconds=0.05)
    assert transport is not None
    requests.get(upstream.url)
    origin = origin_of(transport)
    assert origin.open == 1

    wait_until(lambda: origin.open == 0)

    assert not pools_of(transport).idle
    assert requests.get(upstream.url).json()["connection"] == 2


def test_a_connection_that_the_upstream_closed_is_not_used(ours: Transport, upstream: Upstream) -> None:
    requests.get(upstream.url)
    upstream.drop()
    wait_until(lambda: not origin_of(ours).idle)  # closed at once, and not when somebody needs it

    assert requests.post(upstream.url).json()["connection"] == 2
    assert origin_of(ours).open == 1


def test_what_nobody_asked_for_closes_a_connection(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/more", answer(b"mine") + answer(b"yours"))

    assert requests.get(url).content == b"mine"
    assert requests.get(upstream.url).json()["connection"] == 2


@pytest.mark.parametrize("pause_seconds", [0.0, 0.02])
def test_an_upstream_that_says_something_unasked_is_not_shared(
    pause_seconds: float, ours: Transport, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    extra = (answer(b"mine"), answer(b"yours"))
    url = upstream.on("/", sends(*extra, pause_seconds=pause_seconds) if pause_seconds else sends(b"".join(extra)))

    assert requests.get(url).content == b"mine"
    wait_until(lambda: origin_of(ours).open == 0)

    assert [requests.get(url).content for _ in range(5)] == [b"mine"] * 5
    assert upstream.connections == 6
    assert [each.message for each in caplog.records if "more than it is asked for" in each.message] == [
        f"127.0.0.1:{upstream.port} sends more than it is asked for: for 600 s, connections to it are not shared by "
        "sessions"
    ]


def test_what_is_found_unasked_when_a_connection_is_taken_counts_as_well(
    ours: Transport, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "watch", lambda self: None)  # the loop has not looked yet
    url = upstream.on("/", sends(answer(b"mine"), answer(b"yours"), pause_seconds=0.02))
    assert requests.get(url).content == b"mine"
    (kept,) = origin_of(ours).idle
    wait_until(lambda: not kept.is_quiet())

    assert requests.get(url).content == b"mine"

    assert origin_of(ours).distrusted_until > 0
    assert upstream.connections == 2


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


def test_a_connection_that_was_asked_to_close_is_not_used_again(ours: Transport, upstream: Upstream) -> None:
    for _ in range(2):
        assert requests.get(upstream.url, headers={"Connection": "close"}).ok

    assert upstream.connections == 2
    assert origin_of(ours).open == 0


def test_a_connection_that_speaks_another_protocol_is_not_used_again(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n")

    assert [requests.get(url).status_code for _ in range(2)] == [101, 101]
    assert upstream.connections == 2


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


def test_a_connection_that_was_idle_is_its_sessions_alone(
    ours: Transport, upstream: Upstream, clock: ManualClock
) -> None:
    with requests.Session() as session:
        session.get(upstream.url)
        pools_of(ours).now = clock.now
        origin_of(ours).idle[0].idle_since = clock.now()
        clock.advance(QUICK_SECONDS)

        assert requests.get(upstream.url).json()["connection"] == 2
        clock.advance(QUICK_SECONDS)
        assert session.get(upstream.url).json()["connection"] == 1


KEEP_ALIVES = {
    # what the upstream says -> how long the connection is used after that, None is not at all
    "timeout=1": 0.5,
    "timeout=5, max=100": 4.0,
    "max=9,Timeout = 3": 2.0,
    "timeout=0": None,
    "max=0": None,
    "max=1": None,
    "nonsense": 90.0,
}


@pytest.mark.parametrize("said", KEEP_ALIVES)
def test_keep_alive_is_obeyed(said: str, ours: Transport, upstream: Upstream, clock: ManualClock) -> None:
    url = upstream.on("/", answer(b"", "200 OK", f"Keep-Alive: {said}"))
    seconds = KEEP_ALIVES[said]
    with requests.Session() as session:
        session.get(url)
        origin, pools = origin_of(ours), pools_of(ours)
        if seconds is None:
            assert origin.open == 0
            return
        pools.now = clock.now
        for wait_seconds, connections in ((seconds - 0.1, 1), (seconds, 2)):
            origin.idle[0].opened_at = origin.idle[0].idle_since = clock.now()
            clock.advance(wait_seconds)
            session.get(url)
            assert upstream.connections == connections


def test_a_greatest_number_of_requests_is_obeyed_in_both_readings(ours: Transport, upstream: Upstream) -> None:
    """Of all requests, said each time, and of those that are left."""
    total = upstream.on("/total", answer(b"", "200 OK", "Keep-Alive: max=3"))
    for _ in range(6):
        requests.get(total)
    assert upstream.connections == 2

    def left(sock: socket.socket, request: Received) -> bool:
        used = sum(each.connection == request.connection for each in upstream.requests)
        sock.sendall(answer(b"", "200 OK", f"Keep-Alive: timeout=9, max={5 - used}"))
        return used < 6

    for _ in range(20):
        requests.get(upstream.on("/left", left))
    used = Counter(each.connection for each in upstream.requests if each.target == "/left")
    assert max(used.values()) <= 5


def test_a_connection_has_a_greatest_age(switch: Switch, upstream: Upstream, clock: ManualClock) -> None:
    transport = switch.to("ours", age_seconds=10.0)
    assert transport is not None
    numbers = []
    requests.get(upstream.url)
    pools_of(transport).now = clock.now
    for each in origin_of(transport).idle:
        each.opened_at = each.idle_since = clock.now()

    for _ in range(60):
        clock.advance(0.225)
        numbers.append(requests.get(upstream.url).json()["connection"])

    assert numbers.count(1) == 45  # the last one comes back 10.1 s old
    assert upstream.connections > 1


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


def test_a_real_thread_is_served_by_the_original_adapter(switch: Switch, ours: Transport, upstream: Upstream) -> None:
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(requests.get(upstream.url, timeout=SOON)))
    thread.start()
    thread.join(SOON)

    assert seen[0].ok
    assert len(switch.fell_back) == 1


def test_a_forked_child_does_not_use_its_parents_connections(ours: Transport, upstream: Upstream) -> None:
    requests.get(upstream.url)
    transport = ours
    pid = os.fork()
    if not pid:
        transport.forget()  # what install() has the fork do
        os._exit(0 if transport.pools is None else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert requests.get(upstream.url).json()["connection"] == 1


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
