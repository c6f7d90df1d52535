"""Names, looked up by a fake that blocks in real threads until it is told what to answer."""

import contextvars
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from greenroom import clock
from greenroom.in_flight import CLIENT_LEFT, CURRENT, Record
from greenroom.waits import dns
from greenroom.waits.dns import Names
from greenroom.waits.threads import Threads

LONG_WAIT_SECONDS = 30.0
ADDRESS = "192.0.2.1"
NOT_FOUND = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
FAILED = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class NameServer:
    """Answers every name with ADDRESS, with what `answers` says, or not at all while the name is in `hanging`."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: Counter[str] = Counter()
        self.threads: set[int] = set()
        self.hanging: set[str] = set()
        self.go_on = threading.Event()

    def look_up(self, host: str, port: Any, family: int, type: int, proto: int, flags: int) -> list[Any]:
        self.asked[host] += 1
        self.threads.add(threading.get_ident())
        if host in self.hanging or "hang" in self.hanging and host.startswith("slow"):
            self.go_on.wait(LONG_WAIT_SECONDS)
        answer = self.answers.get(host, ADDRESS)
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, port))]


@pytest.fixture
def server() -> Iterator[NameServer]:
    made = NameServer()
    yield made
    made.go_on.set()


class Time:
    """The monotonic clock, and what a test adds to it."""

    def __init__(self) -> None:
        self.added = 0.0

    def now(self) -> float:
        return clock.now() + self.added


@pytest.fixture
def later() -> Time:
    return Time()


@pytest.fixture
def make(server: NameServer, later: Time) -> Callable[..., Names]:
    def made(**changed: Any) -> Names:
        settings = {"timeout_seconds": LONG_WAIT_SECONDS, "ttl_seconds": 20, "stale_seconds": 300} | changed
        threads = settings.pop("threads", None) or Threads(4, slow_seconds=0.05, hard_limit=64, group_limit=16)
        threads.now = later.now
        return Names(threads, look_up=server.look_up, now=later.now, **settings)

    return made


def address_of(names: Names, host: str, port: Any = 80) -> str:
    return str(names.getaddrinfo(host, port)[0][4][0])


def test_a_name_is_looked_up_once_and_remembered_with_every_port(
    make: Callable[..., Names], server: NameServer
) -> None:
    names = make()

    found = [names.getaddrinfo("example.com", port)[0][4] for port in (80, "443", 8000)]

    assert found == [(ADDRESS, 80), (ADDRESS, 443), (ADDRESS, 8000)]
    assert server.asked == {"example.com": 1}
    assert threading.get_ident() not in server.threads


def test_after_its_time_it_is_looked_up_again(make: Callable[..., Names], server: NameServer, later: Time) -> None:
    names = make(ttl_seconds=20)
    address_of(names, "example.com")
    server.answers["example.com"] = "192.0.2.2"

    later.added = 19.0
    assert address_of(names, "example.com") == ADDRESS
    later.added = 21.0
    assert address_of(names, "example.com") == "192.0.2.2"


def test_all_who_ask_at_once_wait_for_one_look_up(make: Callable[..., Names], server: NameServer) -> None:
    names = make()
    server.hanging.add("example.com")

    askers = [gevent.spawn(address_of, names, "Example.com" if number % 2 else "example.com") for number in range(50)]
    gevent.sleep(0.05)
    server.go_on.set()
    gevent.joinall(askers, timeout=LONG_WAIT_SECONDS, raise_error=True)

    assert {asker.value for asker in askers} == {ADDRESS}
    assert sum(server.asked.values()) == 1


def test_that_a_name_does_not_exist_is_remembered_for_a_moment(
    make: Callable[..., Names], server: NameServer, later: Time
) -> None:
    names = make()
    server.answers["nobody.example"] = NOT_FOUND

    for _ in range(3):
        with pytest.raises(socket.gaierror) as caught:
            address_of(names, "nobody.example")
        assert caught.value.args == NOT_FOUND.args
    assert server.asked["nobody.example"] == 1
    del server.answers["nobody.example"]
    later.added = 1.5

    assert address_of(names, "nobody.example") == ADDRESS


def test_thirty_hanging_names_leave_room_for_a_good_one(make: Callable[..., Names], server: NameServer) -> None:
    names = make()
    server.hanging.add("hang")
    slow = [gevent.spawn(address_of, names, f"slow.zone{number}.example") for number in range(30)]
    gevent.sleep(0)

    began = time.monotonic()
    with gevent.Timeout(LONG_WAIT_SECONDS):
        assert address_of(names, "good.test") == ADDRESS

    assert time.monotonic() - began < LONG_WAIT_SECONDS / 5
    assert not any(asker.ready() for asker in slow)
    with gevent.Timeout(LONG_WAIT_SECONDS):
        assert gevent.get_hub().threadpool.apply(int) == 0, "gevent's own threads are left to others"
    gevent.killall(slow)


def test_names_of_one_hanging_zone_do_not_take_all_threads(make: Callable[..., Names], server: NameServer) -> None:
    names = make(threads=Threads(4, slow_seconds=0.01, hard_limit=8, group_limit=4))
    server.hanging.add("hang")
    slow = [gevent.spawn(address_of, names, f"slow{number}.dead.example") for number in range(100)]
    gevent.sleep(0.1)

    with gevent.Timeout(LONG_WAIT_SECONDS):
        good = [address_of(names, f"good{number}.test") for number in range(20)]

    assert good == [ADDRESS] * 20
    assert sum(host.startswith("slow") for host in server.asked) == 4
    gevent.killall(slow)
    assert not names.threads.waiting, "what nobody waits for is not looked up any more"


def test_a_look_up_past_its_bound_fails_as_libc_does_and_holds_nobody_else(
    make: Callable[..., Names], server: NameServer, later: Time
) -> None:
    names = make(timeout_seconds=0.1)
    server.hanging.add("example.com")

    with pytest.raises(socket.gaierror) as caught:
        address_of(names, "example.com")
    assert caught.value.errno == socket.EAI_AGAIN
    later.added = 1.0
    with gevent.Timeout(0, False), pytest.raises(socket.gaierror, match="example.com not found in 0.1 s"):
        address_of(names, "example.com")  # without waiting at all: the timeout above would have ended it

    server.go_on.set()
    wait_until_quiet(names)
    assert address_of(names, "example.com") == ADDRESS
    assert server.asked["example.com"] == 1, "the late answer is an answer"


def test_while_the_name_server_fails_or_hangs_what_was_known_is_used_on(
    make: Callable[..., Names], server: NameServer, later: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "STALE_AFTER_SECONDS", 0.05)
    names = make(ttl_seconds=20, stale_seconds=300)
    address_of(names, "example.com")

    later.added = 30
    server.answers["example.com"] = FAILED
    assert address_of(names, "example.com") == ADDRESS
    assert address_of(names, "example.com") == ADDRESS
    assert server.asked["example.com"] == 2, "a failure is remembered for a moment, too"
    later.added = 60
    server.hanging.add("example.com")
    assert address_of(names, "example.com") == ADDRESS
    later.added = 400
    server.go_on.set()
    wait_until_quiet(names)
    later.added = 420
    with pytest.raises(socket.gaierror):
        address_of(names, "example.com")


def test_that_a_known_name_does_not_exist_any_more_is_believed(
    make: Callable[..., Names], server: NameServer, later: Time
) -> None:
    names = make()
    address_of(names, "example.com")
    server.answers["example.com"] = NOT_FOUND
    later.added = 30

    with pytest.raises(socket.gaierror) as caught:
        address_of(names, "example.com")

    assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize("spent", [True, False])
def test_the_budget_bounds_a_look_up_with_a_timeout(
    make: Callable[..., Names], server: NameServer, spent: bool
) -> None:
    names = make()
    server.hanging.add("example.com")
    record = Record(arrived=clock.now(), deadline=clock.now() + (0.0 if spent else 0.05))
    context = contextvars.copy_context()
    context.run(CURRENT.set, record)

    with gevent.Timeout(LONG_WAIT_SECONDS), pytest.raises(TimeoutError):
        context.run(address_of, names, "example.com")

    assert server.asked["example.com"] == (0 if spent else 1)


def test_the_wait_is_named_and_a_cut_ends_it(make: Callable[..., Names], server: NameServer) -> None:
    names = make()
    server.hanging.add("example.com")
    record = Record(arrived=clock.now(), deadline=clock.now() + LONG_WAIT_SECONDS)
    context = contextvars.copy_context()
    context.run(CURRENT.set, record)
    asker = record.greenlet = gevent.spawn(context.run, address_of, names, "example.com")
    with gevent.Timeout(LONG_WAIT_SECONDS):
        while not record.waits:
            gevent.sleep(0.001)
    (wait,) = record.waits

    record.cut(CLIENT_LEFT)
    asker.join(LONG_WAIT_SECONDS)

    assert (wait.kind, wait.detail) == ("dns", "example.com")
    assert isinstance(asker.exception, TimeoutError)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "::1", b"127.0.0.1", "::ffff:192.0.2.1", "", None]
)
def test_addresses_need_no_thread_and_come_out_as_libc_has_them(
    make: Callable[..., Names], server: NameServer, host: Any
) -> None:
    names = make()

    try:
        expected = socket.getaddrinfo(host, 80, 0, socket.SOCK_STREAM)
    except socket.gaierror as exc:
        with pytest.raises(socket.gaierror, match=exc.args[1]):
            names.getaddrinfo(host, 80, 0, socket.SOCK_STREAM)
    else:
        assert names.getaddrinfo(host, 80, 0, socket.SOCK_STREAM) == expected
    assert not server.asked


def test_localhost_needs_no_thread_where_the_hosts_file_has_it(make: Callable[..., Names], server: NameServer) -> None:
    names = make(is_localhost_local=True)

    assert {entry[4][0] for entry in names.getaddrinfo("localhost", 80)} <= {"127.0.0.1", "::1"}
    assert not server.asked


def test_a_name_that_looks_like_a_number_is_looked_up(make: Callable[..., Names], server: NameServer) -> None:
    assert address_of(make(), "1and1.example") == ADDRESS


def test_an_error_of_the_question_is_not_remembered(make: Callable[..., Names], server: NameServer) -> None:
    names = make()
    server.answers["example.com"] = UnicodeError("label too long")

    for _ in range(2):
        with pytest.raises(UnicodeError):
            address_of(names, "example.com")

    assert server.asked["example.com"] == 2


def test_memory_is_bounded(make: Callable[..., Names], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "NAMES_REMEMBERED", 10)
    names = make()

    for number in range(30):
        address_of(names, f"n{number}.example")

    assert len(names.entries) == 10
    assert not names.flights


def test_a_real_thread_asks_libc_itself(make: Callable[..., Names], server: NameServer) -> None:
    names = make()
    found: list[Any] = []

    thread = threading.Thread(target=lambda: found.extend(names.getaddrinfo("localhost", 80)))
    thread.start()
    thread.join(LONG_WAIT_SECONDS)

    assert found
    assert not server.asked


def wait_until_quiet(names: Names) -> None:
    with gevent.Timeout(LONG_WAIT_SECONDS):
        while names.threads.running:
            gevent.sleep(0.005)


def test_of_200_users_nobody_gets_the_address_of_anothers_name(make: Callable[..., Names], server: NameServer) -> None:
    """With names that fail, hang or move, asked for with several ports and by several at once."""
    users = range(200)
    own = {f"user{number}.zone{number % 40}.test": f"192.0.{number % 8}.{number}" for number in users}
    for number, name in enumerate(own):
        answer = (own[name], FAILED, NOT_FOUND)[number % 10 - 7 if number % 10 > 7 else 0]
        server.answers[name] = server.answers[name.upper()] = answer
    server.hanging = {kind(name) for name in list(own)[5::50] for kind in (str.lower, str.upper)}
    names = make(timeout_seconds=1.0)
    right: list[str] = []

    def ask(name: str, port: int) -> None:
        try:
            found = names.getaddrinfo(name.upper() if port % 2 else name, port)
        except socket.gaierror:
            assert server.answers[name] != own[name] or name in server.hanging
            return
        assert {each[4] for each in found} == {(own[name], port)}
        found.clear()  # is this user's list, and nobody else's
        right.append(name)

    asking = [gevent.spawn(ask, name, port) for port in range(1, 5) for name in own]
    gevent.joinall(asking, LONG_WAIT_SECONDS, raise_error=True)

    assert all(each.successful() for each in asking)
    assert len(right) >= 4 * 150
