"""A request's budget bounds each wait for an upstream."""

import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator

import gevent
import gevent.socket
import pytest
import requests
import urllib3

from greenroom import deadline, in_flight
from greenroom.waits.http.adapter import Transport

from .conftest import Switch
from .pools import SHORT_SECONDS, SOON, hang, origin_of, wait_until
from .upstream import Upstream, sends

pytestmark = pytest.mark.usefixtures("bounded")
# The delay that a busy machine may add. Without a budget each of these would take SOON.
SLACK_SECONDS = 3.0


class Elapsed:
    def __init__(self) -> None:
        self.started = time.monotonic()

    def assert_short(self) -> None:
        assert time.monotonic() - self.started < SHORT_SECONDS + SLACK_SECONDS


@pytest.fixture
def elapsed() -> Elapsed:
    return Elapsed()


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full: connecting to it takes for ever."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    others = []
    for _ in range(4):
        other = socket.socket()
        other.setblocking(False)
        other.connect_ex(listener.getsockname())
        others.append(other)
    yield listener.getsockname()[1]
    for each in (*others, listener):
        each.close()


def test_a_silent_upstream_is_a_read_timeout(ours: Transport, upstream: Upstream, elapsed: Elapsed) -> None:
    with deadline.budget(SHORT_SECONDS), pytest.raises(requests.ReadTimeout, match="budget of 0.15 s is spent"):
        requests.get(upstream.on("/", hang), timeout=SOON)

    elapsed.assert_short()
    assert origin_of(ours).open == 0


@pytest.mark.parametrize("more", [10.0, None], ids=["more seconds", "no budget any more"])
def test_a_budget_that_is_extended_while_an_upstream_is_waited_for_is_that_long(
    more: float | None, ours: Transport, upstream: Upstream
) -> None:
    url = upstream.on("/", sends(b"HTTP/1.1 200 OK\r\n", b"Content-Length: 0\r\n\r\n", pause_seconds=4 * SHORT_SECONDS))

    with deadline.budget(SHORT_SECONDS) as budget:
        gevent.spawn_later(SHORT_SECONDS / 3, budget.set, more)
        response = requests.get(url, timeout=SOON)

    assert response.ok


def test_a_budget_that_is_extended_does_not_extend_the_callers_timeout(
    ours: Transport, upstream: Upstream, elapsed: Elapsed
) -> None:
    with deadline.budget(SHORT_SECONDS / 2) as budget:
        gevent.spawn_later(SHORT_SECONDS / 4, budget.set, None)
        with pytest.raises(requests.ReadTimeout, match=r"read timeout=0\.15"):
            requests.get(upstream.on("/", hang), timeout=(SOON, SHORT_SECONDS))

    elapsed.assert_short()


def test_a_clean_up_that_waits_when_the_budget_ends_has_its_own_time(
    ours: Transport, upstream: Upstream, elapsed: Elapsed
) -> None:
    ends = deadline.clock.now() + 2 * SHORT_SECONDS

    with deadline.budget(SHORT_SECONDS) as budget, deadline.shield():
        budget.clean_up_at_most = ends
        with pytest.raises(requests.ReadTimeout):
            requests.get(upstream.on("/", hang), timeout=SOON)

    assert deadline.clock.now() >= ends
    elapsed.assert_short()


def test_a_shorter_timeout_of_the_caller_counts(ours: Transport, upstream: Upstream, elapsed: Elapsed) -> None:
    with deadline.budget(SOON), pytest.raises(requests.ReadTimeout, match=r"read timeout=0\.05"):
        requests.get(upstream.on("/", hang), timeout=(SOON, 0.05))

    elapsed.assert_short()


def test_a_body_that_stops_is_a_connection_error_that_says_timeout(
    ours: Transport, upstream: Upstream, elapsed: Elapsed
) -> None:
    """As in requests, where a timeout within the body is a ConnectionError over urllib3's ReadTimeoutError."""
    url = upstream.on("/", sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", then="hang"))

    with deadline.budget(SHORT_SECONDS), pytest.raises(requests.ConnectionError) as caught:
        requests.get(url, timeout=SOON)

    assert isinstance(caught.value.args[0], urllib3.exceptions.ReadTimeoutError)
    elapsed.assert_short()
    assert origin_of(ours).open == 0


@pytest.mark.parametrize("where", ["head", "body", "chunks"])
def test_an_upstream_that_drips_is_cut_at_the_deadline(
    where: str, ours: Transport, upstream: Upstream, elapsed: Elapsed
) -> None:
    """Each byte comes in good time, so no timeout of the caller's would ever end it."""
    begin = {
        "head": b"HTTP/1.1 200 OK\r\nX-A: ",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n",
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    }[where]
    piece = b"1\r\na\r\n" if where == "chunks" else b"a"
    url = upstream.on("/", sends(begin, *[piece] * 2000, pause_seconds=0.01))

    with deadline.budget(SHORT_SECONDS), pytest.raises((requests.Timeout, requests.ConnectionError)):
        requests.get(url, timeout=SOON)

    elapsed.assert_short()
    assert origin_of(ours).open == 0


def test_sending_to_an_upstream_that_does_not_read_is_a_read_timeout(ours: Transport, elapsed: Elapsed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with deadline.budget(SHORT_SECONDS), pytest.raises(requests.ReadTimeout):
            requests.post(url, data=b"x" * 20_000_000, timeout=SOON)

    elapsed.assert_short()


def test_sending_to_a_tls_upstream_that_does_not_read_is_a_read_timeout(
    ours: Transport, elapsed: Elapsed, certificate: tuple[str, str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    is_over = threading.Event()

    def shake_hands() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True):
            is_over.wait(SOON)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=shake_hands)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with deadline.budget(SHORT_SECONDS), pytest.raises(requests.ReadTimeout):
            requests.post(url, data=b"x" * 20_000_000, verify=certificate[0], timeout=SOON)
        elapsed.assert_short()
        is_over.set()
        thread.join(SOON)


def test_a_tls_handshake_that_hangs_is_a_read_timeout(ours: Transport, elapsed: Elapsed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with deadline.budget(SHORT_SECONDS), pytest.raises(requests.ReadTimeout):
            requests.get(url, timeout=SOON)

    elapsed.assert_short()
    assert origin_of(ours).open == 0


def test_connecting_in_vain_is_a_connect_timeout(
    switch: Switch, full_port: int, elapsed: Elapsed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from greenroom.waits import happy_eyeballs

    monkeypatch.setattr("socket.socket", gevent.socket.socket)
    ours = switch.to("ours")
    assert ours is not None
    monkeypatch.setattr(
        "urllib3.util.connection.create_connection", lambda *args, **kwargs: happy_eyeballs.create_connection(*args)
    )
    with deadline.budget(SHORT_SECONDS), pytest.raises(requests.ConnectTimeout):
        requests.get(f"http://127.0.0.1:{full_port}/", timeout=SOON)

    elapsed.assert_short()
    assert origin_of(ours).open == 0


def test_waiting_for_a_connection_is_a_connect_timeout(switch: Switch, upstream: Upstream, elapsed: Elapsed) -> None:
    transport = switch.to("ours", connections=1)
    assert transport is not None
    first = gevent.spawn(requests.get, upstream.on("/", hang), timeout=SOON)
    wait_until(lambda: upstream.requests)

    with deadline.budget(SHORT_SECONDS), pytest.raises(requests.ConnectTimeout, match="no connection"):
        requests.get(upstream.url, timeout=SOON)

    elapsed.assert_short()
    first.kill()
    assert not origin_of(transport).waiting


def test_a_connection_that_is_kept_holds_on_to_nobody_who_waited_on_it(ours: Transport, upstream: Upstream) -> None:
    def ask() -> None:
        with deadline.budget(SOON):
            requests.get(upstream.url, timeout=SOON)

    greenlet = gevent.spawn(ask)
    greenlet.get(timeout=SOON)
    asked = weakref.ref(greenlet)
    del greenlet

    assert origin_of(ours).open == 1
    wait_until(lambda: asked() is None)


def test_nothing_is_sent_when_the_budget_is_spent(ours: Transport, upstream: Upstream) -> None:
    requests.get(upstream.url)

    with deadline.budget(0.0), pytest.raises(requests.ReadTimeout):
        requests.get(upstream.url)

    assert len(upstream.requests) == 1
    assert len(origin_of(ours).idle) == 1


def test_a_cut_ends_the_wait_at_once(ours: Transport, upstream: Upstream, elapsed: Elapsed) -> None:
    with deadline.budget(SOON) as current:
        gevent.spawn_later(0.05, current.cut, in_flight.CLIENT_LEFT)
        with pytest.raises(requests.ReadTimeout):
            requests.get(upstream.on("/", hang), timeout=SOON)

    elapsed.assert_short()
    assert origin_of(ours).open == 0


def test_the_wait_is_named_after_the_upstream(ours: Transport, upstream: Upstream) -> None:
    with deadline.budget(SOON) as current:
        asking = gevent.spawn(requests.get, upstream.on("/", hang), timeout=SOON)
        asking.gr_context = gevent.getcurrent().gr_context.copy()
        wait_until(lambda: upstream.requests and current.waits)
        seen = [(wait.kind, wait.detail) for wait in current.waits]
        asking.kill()

    assert seen == [("upstream", f"127.0.0.1:{upstream.port}")]
    assert not current.waits
