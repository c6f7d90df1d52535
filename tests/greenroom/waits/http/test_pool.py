"""Connections are kept and shared, for as long as both sides want, and by nobody after a fork or in a thread."""

import os
import socket
import threading
import time
from collections import Counter
from typing import Any

import gevent
import pytest
import requests

from greenroom.waits.http import pool
from greenroom.waits.http.adapter import Transport
from greenroom.waits.http.connection import Connection

from ...conftest import ManualClock
from .conftest import QUICK_SECONDS, Switch
from .pools import SOON, origin_of, pools_of, wait_until
from .upstream import Received, Upstream, answer, sends


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


def test_an_answer_behind_another_is_never_a_strangers(
    ours: Transport, upstream: Upstream, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody asked for mostly comes right behind an answer, and so just after the look at a connection."""
    monkeypatch.setattr(pool, "QUIET_SECONDS", 0.01)
    with requests.Session() as session:
        session.get(upstream.url)
        pools_of(ours).now = clock.now
        origin_of(ours).idle[0].idle_since = clock.now()
        clock.advance(0.009)

        assert requests.get(upstream.url).json()["connection"] == 2
        assert session.get(upstream.url).json()["connection"] == 1

    for _ in range(20):  # as if each took 6 ms
        clock.advance(0.006)
        assert requests.get(upstream.url).json()["connection"] <= 3
    assert origin_of(ours).open == 3


@pytest.mark.parametrize("uptime", [10_000.0, 20_000.0, 100_000.0])
def test_those_who_wait_get_a_connection_when_it_is_quiet_however_long_the_machine_runs(
    switch: Switch, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, uptime: float
) -> None:
    """(a + 0.01) - a is less than 0.01 for half of the clock's readings."""
    ours = switch.to("ours", connections=1)
    assert ours is not None
    monkeypatch.setattr(pool, "QUIET_SECONDS", 0.01)
    assert requests.get(upstream.url).json()["connection"] == 1
    pools, began = pools_of(ours), time.monotonic()
    pools.now = lambda: uptime + time.monotonic() - began
    (kept,) = origin_of(ours).idle
    kept.opened_at = kept.idle_since = uptime - 1.0

    asked = [gevent.spawn(requests.get, upstream.url) for _ in range(5)]
    gevent.joinall(asked, timeout=30)

    assert [one.get().json()["connection"] for one in asked] == [1] * 5


def test_what_nobody_can_use_any_more_is_closed_and_a_sessions_connection_is_kept(
    ours: Transport, upstream: Upstream, clock: ManualClock
) -> None:
    with requests.Session() as session:
        session.get(upstream.url)
        pools = pools_of(ours)
        pools.now = clock.now
        (kept,) = origin_of(ours).idle
        kept.idle_since = clock.now()
        clock.advance(QUICK_SECONDS)
        requests.get(upstream.url)
        clock.advance(QUICK_SECONDS)

        pools.sweep()

        assert origin_of(ours).idle == [kept]


def test_a_connection_that_was_asked_to_close_is_not_used_again(ours: Transport, upstream: Upstream) -> None:
    for _ in range(2):
        assert requests.get(upstream.url, headers={"Connection": "close"}).ok

    assert upstream.connections == 2
    assert origin_of(ours).open == 0


def test_a_connection_that_speaks_another_protocol_is_not_used_again(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n")

    assert [requests.get(url).status_code for _ in range(2)] == [101, 101]
    assert upstream.connections == 2


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
