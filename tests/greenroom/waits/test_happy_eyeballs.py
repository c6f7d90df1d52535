"""Connecting to several addresses: real sockets on loopback, one of them where nobody answers."""

import contextvars
import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from types import ModuleType
from typing import Any

import gevent
import pytest
import urllib3.util.connection

from greenroom import clock
from greenroom.in_flight import CLIENT_LEFT, CURRENT, Record
from greenroom.waits import happy_eyeballs
from greenroom.waits.happy_eyeballs import alternating, create_connection

LONG_WAIT_SECONDS = 30.0


def entry(address: str, port: int) -> Any:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, 6, "", (address, port)


@pytest.fixture
def listener() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.2", 0)) as made:
        yield made.getsockname()


@pytest.fixture
def hole() -> Iterator[tuple[str, int]]:
    """An address whose queue of connections is full: the kernel drops what else comes, as a firewall does."""
    clients = []
    with socket.create_server(("127.0.0.3", 0), backlog=0) as made:
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(made.getsockname())
            clients.append(client)
        time.sleep(0.05)
        yield made.getsockname()
        for client in clients:
            client.close()


@pytest.fixture
def closed() -> tuple[str, int]:
    with socket.create_server(("127.0.0.4", 0)) as made:
        return made.getsockname()  # type: ignore[no-any-return]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def to(*addresses: tuple[str, int]) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry(*address) for address in addresses])

    return to


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[happy_eyeballs.Attempt]:
    made: list[happy_eyeballs.Attempt] = []

    class Watched(happy_eyeballs.Attempt):
        def __init__(self, *args: Any) -> None:
            made.append(self)
            super().__init__(*args)

    monkeypatch.setattr(happy_eyeballs, "Attempt", Watched)
    return made


def test_the_next_address_is_tried_while_the_first_is_silent_and_the_loser_is_closed(
    hole: Any, listener: Any, resolve: Callable[..., None], attempts: list[happy_eyeballs.Attempt]
) -> None:
    resolve(hole, listener)

    with closing(create_connection(("example.com", 80), timeout=LONG_WAIT_SECONDS)) as sock:
        assert sock.getpeername() == listener
        assert sock.gettimeout() == LONG_WAIT_SECONDS

    assert [attempt.sock.fileno() for attempt in attempts] == [-1, -1]
    assert len(attempts) == 2


def test_while_the_first_address_may_still_answer_no_other_is_tried(
    listener: Any, hole: Any, resolve: Callable[..., None], attempts: list[happy_eyeballs.Attempt]
) -> None:
    resolve(listener, hole)

    with closing(create_connection(("example.com", 80), timeout=LONG_WAIT_SECONDS)) as sock:
        assert sock.getpeername() == listener

    assert len(attempts) == 1


def test_after_a_refusal_the_next_address_is_tried_at_once(
    closed: Any, listener: Any, resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(happy_eyeballs, "STAGGER_SECONDS", 1000.0)
    resolve(closed, closed, listener)

    with gevent.Timeout(LONG_WAIT_SECONDS), closing(create_connection(("example.com", 80))) as sock:
        assert sock.getpeername() == listener


def test_when_none_can_be_reached_the_last_error_is_raised_or_all(closed: Any, resolve: Callable[..., None]) -> None:
    resolve(closed, closed)

    with pytest.raises(ConnectionRefusedError) as caught:
        create_connection(("example.com", 80), timeout=LONG_WAIT_SECONDS)
    assert caught.value.errno == errno.ECONNREFUSED
    with pytest.raises(ExceptionGroup) as all_of_them:
        create_connection(("example.com", 80), timeout=LONG_WAIT_SECONDS, all_errors=True)
    assert len(all_of_them.value.exceptions) == 2


def test_the_timeout_is_for_all_addresses_together(
    hole: Any, resolve: Callable[..., None], attempts: list[happy_eyeballs.Attempt]
) -> None:
    resolve(*[hole] * 50)

    with gevent.Timeout(LONG_WAIT_SECONDS), pytest.raises(TimeoutError, match="timed out"):
        create_connection(("example.com", 80), timeout=0.6)

    assert 2 <= len(attempts) <= 4
    assert {attempt.sock.fileno() for attempt in attempts} == {-1}


@pytest.mark.parametrize("interrupted", [True, False])
def test_the_budget_and_its_cut_end_it(hole: Any, resolve: Callable[..., None], interrupted: bool) -> None:
    resolve(hole)
    record = Record(arrived=clock.now(), deadline=clock.now() + (LONG_WAIT_SECONDS if interrupted else 0.05))
    context = contextvars.copy_context()
    context.run(CURRENT.set, record)
    asker = record.greenlet = gevent.spawn(context.run, create_connection, ("example.com", 80))
    with gevent.Timeout(LONG_WAIT_SECONDS):
        while not record.waits:
            gevent.sleep(0.001)
    (wait,) = record.waits
    if interrupted:
        record.cut(CLIENT_LEFT)

    asker.join(LONG_WAIT_SECONDS)

    assert (wait.kind, wait.detail) == ("upstream", "example.com:80")
    assert isinstance(asker.exception, TimeoutError)


def test_options_and_the_source_address_are_set(listener: Any, resolve: Callable[..., None]) -> None:
    resolve(listener)
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]

    with closing(create_connection(("x", 80), 5, ("127.0.0.9", 0), socket_options=options)) as sock:
        assert sock.getsockname()[0] == "127.0.0.9"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_families_take_turns_and_keep_their_order() -> None:
    found = [entry(address, 80) for address in ("::1", "::2", "::3", "192.0.2.1", "192.0.2.2")]

    assert [way[4][0] for way in alternating(found)] == ["::1", "192.0.2.1", "::2", "192.0.2.2", "::3"]


def test_another_kind_of_socket_connects_in_its_own_way(
    listener: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PySocks has it: socket.socket = socks.socksocket."""

    class Own(socket.socket):
        asked: list[Any] = []  # noqa: RUF012

        def connect(self, address: Any) -> None:
            self.asked.append(address)
            super().connect(listener)

    module: Any = ModuleType("urllib3.util.connection")
    module.create_connection = urllib3.util.connection.create_connection
    module.allowed_gai_family = urllib3.util.connection.allowed_gai_family
    happy_eyeballs._replace_in(module, happy_eyeballs._in_urllib3(module), setattr)
    with closing(module.create_connection(listener)) as plain:
        assert type(plain) is socket.socket
    monkeypatch.setattr(socket, "socket", Own)

    with closing(module.create_connection(("127.0.0.1", 1), timeout=LONG_WAIT_SECONDS)) as sock:
        assert sock.getpeername() == listener

    assert Own.asked == [("127.0.0.1", 1)]
