"""Facts behind verdicts: peers, queries, clients, garbage, memory of a request, lines and holders of waits."""

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from greenroom.errors import BudgetSpent
from greenroom.frames import Innermost
from greenroom.in_flight import CURRENT, Wait
from greenroom.insight import callers, stacks
from greenroom.insight import clients as clients_module
from greenroom.insight.account import STATES, Account
from greenroom.insight.callers import Callers, line_and_library
from greenroom.insight.clients import Clients
from greenroom.insight.facts import databases, lines_of
from greenroom.insight.failures import Failures
from greenroom.insight.garbage import Garbage
from greenroom.insight.growth import PAGE_BYTES, Growth
from greenroom.insight.locks import Waiter
from greenroom.insight.queries import REPEATS, Queries
from greenroom.waits import peers
from greenroom.waits.stdlib import threads
from greenroom.waits.stdlib.calls import Look

from .accounts import wait_in


@pytest.fixture(autouse=True)
def no_peers() -> Any:
    peers.peers.clear()
    yield
    peers.peers.clear()


def account(route: str = "/list") -> Account:
    one = Account(0.0)
    one.route = route
    return one


def test_answers_are_counted_by_status_and_connections_by_how_they_failed() -> None:
    peers.answered("api:443", 200)
    peers.answered("api:443", 503)
    peers.not_connected("api:443", ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    peers.not_connected("api:443", TimeoutError("timed out"))

    assert peers.peers["api:443"].numbers == {"status_200": 1, "status_503": 1, "refused": 1, "timed_out": 1}


def test_what_is_nobodys_failure_is_not_counted_as_one() -> None:
    peers.not_connected("api:443", BudgetSpent("the request's budget is spent"))
    peers.not_connected("api:443", OSError(errno.EMFILE, "Too many open files"))

    assert peers.peers == {}


def test_hosts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MOST_PEERS", 3)

    for number in range(10):
        peers.answered(f"host{number}:80", 200)

    assert set(peers.peers) == {"host0:80", "host1:80", "host2:80", "other"}


def test_calls_are_counted_for_each_request_and_the_line_that_failed_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_caller", lambda: ("a.py:3", "redis"))
    one = account("/buy")
    token = CURRENT.set(one)
    try:
        peers.asked("api:443")
        peers.asked("api:443")
        peers.failed("api:443", "refused", "Connection refused")
    finally:
        CURRENT.reset(token)

    assert one.calls == {"api:443": 2}
    (line,) = lines_of(peers.peers["api:443"])
    assert line == {"line": "a.py:3", "route": "/buy", "library": "redis", "count": 1}


def test_a_database_is_told_with_when_it_was_heard() -> None:
    peer = peers.of("db:5432")
    peer.is_database, peer.heard_at = True, 90.0
    peers.failed("db:5432", "full", "FATAL: sorry, too many clients already")

    row = databases(100.0)["db:5432"]

    assert (row["full"], row["heard_seconds"]) == (1, 10.0)
    assert row["last_failure"] == "FATAL: sorry, too many clients already"


def test_the_line_that_repeats_a_query_is_found() -> None:
    queries, one = Queries(Innermost(lambda frame: False)), account()
    code = test_the_line_that_repeats_a_query_is_found.__code__

    queries.asked(one, code, 0, "SELECT 1")
    for number in range(REPEATS + 5):
        queries.asked(one, code, 8, f"SELECT * FROM items WHERE id = {number}")
    queries.finish(one)

    (row,) = queries.as_list()
    assert (row["route"], row["most"], row["requests"]) == ("/list", REPEATS + 5, 1)
    assert row["statement"] == "SELECT * FROM items WHERE id = ?"
    assert queries.counted() == {"/list": {"requests": 1, "queries": REPEATS + 6}}
    assert one.queries is None


def test_few_queries_are_no_row() -> None:
    queries, one = Queries(Innermost(lambda frame: False)), account()
    queries.asked(one, None, 0, "SELECT 1")

    queries.finish(one)

    assert queries.as_list() == []


def test_the_heaviest_clients_are_found_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, "MOST_CLIENTS", 8)
    clients = Clients()

    for number in range(400):
        clients.came({"REMOTE_ADDR": f"10.0.{number % 256}.1"}, is_peer_trusted=False)
        clients.came({"REMOTE_ADDR": "10.9.9.9"}, is_peer_trusted=False)

    said = clients.as_dict()
    assert said["top"][0]["client"] == "10.9.9.9"
    assert said["total"] == 800.0
    assert len(clients.counts) == 8


def test_a_forwarded_address_counts_only_from_a_trusted_proxy() -> None:
    clients = Clients()
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "1.2.3.4, 10.0.0.7"}

    assert clients.came(environ, is_peer_trusted=True) == "10.0.0.7"
    assert clients.came(environ, is_peer_trusted=False) == "127.0.0.1"


def test_clients_turned_away_are_counted_by_class() -> None:
    clients = Clients()

    clients.turned_away({"REMOTE_ADDR": "8.8.8.8"}, is_peer_trusted=False)
    clients.turned_away({"REMOTE_ADDR": "10.0.0.1"}, is_peer_trusted=False)
    clients.turned_away(None, is_peer_trusted=True)

    assert clients.as_dict()["shed"] == {"public": 1, "private": 1, "local": 1}


def test_counts_of_clients_are_of_lately() -> None:
    clients = Clients()
    for _ in range(8):
        clients.came({"REMOTE_ADDR": "10.0.0.1"}, is_peer_trusted=False)

    for _ in range(40):
        clients.tick()

    assert clients.counts == {}


def test_pauses_of_the_collector_are_measured(clock: Any) -> None:
    garbage = Garbage(0.05, clock.now)
    for seconds in (0.01, 0.2):
        garbage.collecting("start", {})
        clock.advance(seconds)
        garbage.collecting("stop", {})

    assert garbage.as_dict() == pytest.approx({"count": 2, "seconds": 0.21, "longest_seconds": 0.2})
    assert len(garbage.long) == 1


def test_memory_is_charged_to_the_route_that_keeps_it(tmp_path: Path) -> None:
    statm = tmp_path / "statm"
    statm.write_text("9 100 0")
    growth = Growth(str(statm))
    growth.tick()
    statm.write_text(f"9 {100 + 20_000_000 // PAGE_BYTES} 0")
    growth.tick()
    one = account("/leak")

    assert growth.is_looking
    growth.begin(one)
    statm.write_text(f"9 {100 + 25_000_000 // PAGE_BYTES} 0")
    growth.finish(one)
    growth.stop()

    (row,) = growth.as_list()
    assert row["route"] == "/leak"
    assert row["bytes"] == pytest.approx(5e6, rel=0.01)


def test_without_proc_no_memory_is_charged(tmp_path: Path) -> None:
    growth = Growth(str(tmp_path / "nothing"))

    growth.tick()

    assert not growth.is_looking


def test_the_line_of_a_waiting_greenlet_is_the_applications() -> None:
    event = gevent.event.Event()

    def waits() -> None:
        event.wait()

    greenlet = gevent.spawn(waits)
    gevent.sleep(0)

    line, library = line_and_library(greenlet.gr_frame)
    event.set()
    greenlet.join()

    assert line.endswith(f"test_causes.py:{waits.__code__.co_firstlineno + 1}")
    assert library == ""


def test_who_works_in_an_executor_is_known_while_it_does() -> None:
    one = account()
    started, go_on = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(10)

    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(threads.work_for, lambda: executor, one, work)  # type: ignore[arg-type]
        assert started.wait(10)
        at_work = [record for _, record in threads.used.at_work.values()]
        go_on.set()
        future.result(10)

    assert at_work == [one]
    assert threads.used.at_work == {}


CPU = STATES.index("cpu")


def in_pieces(one: Account, wait: Wait, looks: int, *, cpu_share: float = 0.0, calls: bool = False) -> float:
    """How long a request waits as it seems, that is seen once a second, each time in a new wait for the same."""
    seconds = 0.0
    callers = Callers(now=lambda: 100.0 + seconds)
    one.began = 90.0
    wait_in(one, wait, since=100.0)
    for look in range(looks):
        seconds = float(look)
        one.since = 100.0 + seconds - 0.05
        one.seconds[CPU] = cpu_share * seconds
        if calls:
            one.calls = {wait.detail: look + 1}
        callers.look([one], [])
    return 100.0 + seconds - callers.since(one)


def test_a_library_that_polls_is_one_wait() -> None:
    one = account()

    assert in_pieces(one, Look("other", "poll"), looks=4) == pytest.approx(3.05)
    assert in_pieces(one, Look("other", "poll"), looks=4, cpu_share=0.5) == pytest.approx(0.05), (
        "it does something in between"
    )


def test_an_answer_that_drips_in_is_one_wait_and_many_calls_are_not() -> None:
    dripping, busy, uncounted = account(), account(), account()
    dripping.calls = {"api:443": 1}

    assert in_pieces(dripping, Wait("upstream", "api:443"), looks=4) == pytest.approx(3.05)
    assert in_pieces(busy, Wait("upstream", "api:443"), looks=4, calls=True) == pytest.approx(0.05)
    assert in_pieces(uncounted, Wait("upstream", "api:443"), looks=4) == pytest.approx(0.05)


def test_the_message_of_the_exception_that_began_it_is_kept() -> None:
    failures = Failures()
    try:
        try:
            raise OSError("certificate has expired")
        except OSError as exc:
            raise ValueError("(Caused by OSError('certificate has expired'))") from exc
    except ValueError as exc:
        failures.failed(exc, account())

    (row,) = failures.as_list()
    assert "expired" not in row["message"]
    assert (row["root"], row["began"]) == ("OSError", "certificate has expired")


def test_packages_are_known_behind_a_symbolic_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    (real / "gevent").mkdir(parents=True)
    link.symlink_to(real)

    folders = stacks._both_ways(link / "gevent")

    assert {f"{link}/gevent/", f"{real.resolve()}/gevent/"} <= set(folders)


def test_streams_that_listen_are_looked_at_cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for a lock of its own, which it has taken itself: to look for its name takes a quarter of a
    millisecond.
    """
    looked_for: list[Any] = []
    monkeypatch.setattr(callers, "described", lambda thing, lock: looked_for.append(thing) or "LOCK of shop.py:3")

    class Held:
        def __init__(self, owner: Any) -> None:
            self.note = (owner, None, compile("", "shop.py", "exec"), 0)

    me, somebody = gevent.getcurrent(), gevent.Greenlet()
    listening = [Waiter(me, Held(me), 99.0, account()) for _ in range(300)]
    queueing = [Waiter(me, held, 99.0, account()) for held in [Held(somebody)] for _ in range(2)]
    looking = Callers(now=lambda: 100.0)

    assert looking._holders(listening, 100.0) == []
    assert looked_for == []
    (row,) = looking._holders([*listening, *queueing], 100.0)
    assert (row["name"], row["count"]) == ("LOCK of shop.py:3", 2)


def test_an_unnamed_wait_of_an_answer_that_has_begun_is_a_streams() -> None:
    one, begun = account(), SimpleNamespace(headers_sent=True)
    wait_in(one, None)
    assert callers.detail_of(one) == ""

    one.answer = begun
    assert callers.detail_of(one) == "stream"
    wait_in(one, Wait("client", "poll"))
    assert callers.detail_of(one) == "poll"
    wait_in(one, Wait("upstream"))
    assert callers.detail_of(one) == ""
