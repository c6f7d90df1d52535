"""How a request ends: which waits, whose, when. The waits are gevent's own, nothing is patched."""

import logging
from collections.abc import Callable
from typing import Any

import gevent
import gevent.queue
import gevent.select
import pytest
from gevent import lock
from gevent import socket as green
from gevent.event import Event
from gevent.hub import Hub
from greenlet import getcurrent

from greenroom import clock, deadline, slowing
from greenroom.errors import BudgetSpent
from greenroom.in_flight import CLIENT_LEFT, CURRENT, EVERYWHERE, FOREVER, NEVER, OWN, WORKER_STOPS, Record, TimedWait
from greenroom.waits.stdlib import hub as choke
from tests.greenroom.worker.harness import wait_until

from . import waiting
from .waiting import NEVER_SECONDS, SHORT_SECONDS, ended, sleep

LATE_SECONDS = 5.0


def grace(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(Record, "clean_up_seconds", seconds)


def timed_sleep(seconds: float) -> str:
    with TimedWait("lock", "queue", seconds):
        gevent.sleep(seconds)
        return "came"
    return "timed out"


def with_record(one: Record, function: Callable[[], Any]) -> Any:
    CURRENT.set(one)
    return function()


def test_outside_requests_nothing_is_bounded() -> None:
    assert deadline.remaining_seconds() == FOREVER
    assert deadline.limit(None) is None
    assert deadline.limit(3.0) == 3.0
    assert not deadline.is_refused()


def test_wait_lasts_as_long_as_the_shorter_of_budget_and_its_own_timeout() -> None:
    with deadline.budget(10.0):
        assert deadline.limit(3.0) == 3.0
        assert 9.0 < (deadline.limit(None) or 0.0) <= 10.0
        assert 9.0 < (deadline.limit(30.0) or 0.0) <= 10.0


def test_own_wait_ends_with_the_budget_and_what_comes_then_has_its_time() -> None:
    with deadline.budget(SHORT_SECONDS):
        first = ended(lambda: sleep(NEVER_SECONDS))
        second = ended(lambda: sleep(SHORT_SECONDS))
        left = deadline.remaining_seconds()

    assert (first, second) == (BudgetSpent, None)
    assert Record.clean_up_seconds - LATE_SECONDS < left < Record.clean_up_seconds


@pytest.mark.parametrize("wait", [gevent.sleep, lambda seconds: sleep(seconds, NEVER)])
def test_wait_that_may_not_end_goes_on_and_the_grace_begins_with_the_next_one(
    monkeypatch: pytest.MonkeyPatch, wait: Callable[[float], None]
) -> None:
    grace(monkeypatch, 4 * SHORT_SECONDS)
    with deadline.budget(0.0):
        wait(8 * SHORT_SECONDS)
        refused = deadline.is_refused()
        ends = [ended(lambda: sleep(SHORT_SECONDS)), ended(lambda: sleep(NEVER_SECONDS))]

    assert not refused
    assert ends == [None, BudgetSpent]


def test_edge_is_told_once_in_the_hub_whatever_the_request_waits_for() -> None:
    told: list[tuple[Any, bool]] = []
    with deadline.budget(SHORT_SECONDS) as one:
        one.on_end = lambda ended: told.append((gevent.getcurrent(), ended.is_ended))
        began = clock.now()
        gevent.sleep(4 * SHORT_SECONDS)
        took = clock.now() - began

    assert told == [(gevent.get_hub(), True)]
    assert took >= 4 * SHORT_SECONDS, "the wait itself went on"


def test_edge_is_told_while_a_budget_of_the_application_goes_on_within() -> None:
    told: list[Record] = []
    with deadline.budget(SHORT_SECONDS) as one:
        one.on_end = told.append
        with deadline.budget(NEVER_SECONDS):
            gevent.sleep(4 * SHORT_SECONDS)

    assert told == [one]


def test_edge_that_fails_does_not_keep_a_wait_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Record) -> None:
        raise RuntimeError("no edge")

    with deadline.budget(SHORT_SECONDS) as one:
        one.on_end = fail
        assert ended(lambda: sleep(NEVER_SECONDS)) is BudgetSpent

    assert "no edge" in caplog.text


def test_wait_with_a_timeout_ends_as_if_that_had_passed_and_after_the_grace_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grace(monkeypatch, 2 * SHORT_SECONDS)
    with deadline.budget(SHORT_SECONDS):
        ends = [ended(lambda: timed_sleep(NEVER_SECONDS)) for _ in range(3)]

    assert ends == ["timed out", BudgetSpent, BudgetSpent]


def test_timeout_of_the_outermost_wait_is_the_one_that_counts() -> None:
    def outer(timeout: float | None) -> str:
        with TimedWait("lock", "queue", timeout):
            return "inner: " + timed_sleep(NEVER_SECONDS)
        return "outer: timed out"

    with deadline.budget(SHORT_SECONDS):
        bounded = ended(lambda: outer(NEVER_SECONDS))
    with deadline.budget(SHORT_SECONDS):
        unbounded = ended(lambda: outer(None))

    assert bounded == "outer: timed out"
    assert unbounded is BudgetSpent


def test_wait_is_not_ended_when_it_is_the_inner_one_that_may_not() -> None:
    with deadline.budget(SHORT_SECONDS), TimedWait("other", "subprocess", None):
        sleep(3 * SHORT_SECONDS, NEVER)


def test_grace_of_a_worker_that_stops_does_not_begin_anew() -> None:
    with deadline.budget(NEVER_SECONDS) as one:
        one.cut(WORKER_STOPS, SHORT_SECONDS)
        gevent.sleep(2 * SHORT_SECONDS)
        ends = [ended(lambda: sleep(NEVER_SECONDS)) for _ in range(2)]

    assert ends == [BudgetSpent, BudgetSpent]


def test_stop_of_the_worker_shortens_a_grace() -> None:
    with deadline.budget(SHORT_SECONDS) as one:
        first = ended(lambda: sleep(NEVER_SECONDS))
        one.cut(WORKER_STOPS, SHORT_SECONDS)
        second = ended(lambda: sleep(NEVER_SECONDS))

    assert (first, second) == (BudgetSpent, BudgetSpent)
    assert not one.is_cut, "its client has its answer already"


def test_what_is_asked_for_before_it_is_sent_is_refused_once_and_after_each_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grace(monkeypatch, LATE_SECONDS)
    with deadline.budget(0.0):
        one = CURRENT.get()
        assert one is not None
        refusals = [deadline.is_refused(), deadline.is_refused()]
        for _ in range(2):
            one.clean_up_until = clock.now()  # as if it had passed
            refusals += [deadline.is_refused(), deadline.is_refused()]
        left_seconds = one.clean_up_until - clock.now()
        one.refusals = slowing.QUICK_REFUSALS
        one.clean_up_until = clock.now()
        refusals += [deadline.is_refused(), deadline.is_refused()]

    assert refusals == [True, False] * 3 + [True, True]
    assert left_seconds <= LATE_SECONDS / 4


def test_edge_is_told_before_anything_is_refused() -> None:
    told: list[Record] = []
    with deadline.budget(0.0) as one:
        one.on_end = told.append

        assert deadline.is_refused()
        assert told == [one]


def test_shielded_wait_lasts_until_the_end_of_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    grace(monkeypatch, 4 * SHORT_SECONDS)
    with deadline.budget(0.0), deadline.shield():
        first = ended(lambda: sleep(2 * SHORT_SECONDS))
        second = ended(lambda: sleep(NEVER_SECONDS))

    assert (first, second) == (None, BudgetSpent)


def test_unbounded_wait_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    grace(monkeypatch, 0.0)
    with deadline.budget(0.0), deadline.unbounded():
        assert ended(lambda: sleep(3 * SHORT_SECONDS)) is None


def test_who_swallows_each_refusal_is_slowed_down_and_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    grace(monkeypatch, 0.0)
    began = clock.now()
    attempts = 0
    with deadline.budget(0.0):
        while clock.now() - began < 0.5:
            try:
                sleep(NEVER_SECONDS)
            except BudgetSpent:
                attempts += 1

    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert slowing.QUICK_REFUSALS < attempts < slowing.QUICK_REFUSALS + 12
    assert len(warnings) == 1
    assert f"at {waiting.__file__}:" in warnings[0]
    assert "in sleep" in warnings[0]


def test_who_is_refused_before_it_waits_is_slowed_down_too(monkeypatch: pytest.MonkeyPatch) -> None:
    grace(monkeypatch, 0.0)
    began = clock.now()
    attempts = 0
    with deadline.budget(0.0):
        while clock.now() - began < 0.5:
            attempts += deadline.is_refused()

    assert slowing.QUICK_REFUSALS < attempts < slowing.QUICK_REFUSALS + 12


def test_of_others_only_upstream_calls_and_queries_end_and_once() -> None:
    outcomes: dict[str, Any] = {}
    one = Record(clock.now())

    def work(name: str, ends: int) -> None:
        outcomes[name] = ended(lambda: sleep(4 * SHORT_SECONDS, ends))
        outcomes[f"{name}, later"] = ended(lambda: sleep(SHORT_SECONDS, ends))

    helpers = [
        gevent.spawn(with_record, one, lambda name=name, ends=ends: work(name, ends))
        for name, ends in (("a query", EVERYWHERE), ("a lock", OWN), ("a pipe", NEVER))
    ]
    wait_until(lambda: len(one.waiting) == 3, "they wait")
    one.cut(CLIENT_LEFT)
    gevent.joinall(helpers, timeout=LATE_SECONDS)

    assert outcomes.pop("a query") is BudgetSpent
    assert outcomes == dict.fromkeys(["a query, later", "a lock", "a lock, later", "a pipe", "a pipe, later"])
    assert not one.waiting


def test_whoever_waits_for_a_helper_whose_call_is_ended_has_its_grace_for_cleaning_up() -> None:
    with deadline.budget(SHORT_SECONDS) as one:
        helper = gevent.spawn(with_record, one, lambda: sleep(NEVER_SECONDS, EVERYWHERE))

        assert ended(helper.get) is BudgetSpent  # gevent's own wait: nobody has named it
        assert ended(lambda: sleep(SHORT_SECONDS)) is None


def test_what_the_frames_of_an_error_hold_ends_in_the_greenlet_and_may_wait_there() -> None:
    class Lease:
        def __del__(self) -> None:
            ends.append(getcurrent())

    def work() -> None:
        lease = Lease()
        sleep(NEVER_SECONDS)
        del lease

    ends: list[Any] = []
    with deadline.budget(SHORT_SECONDS):
        assert ended(work) is BudgetSpent
        gevent.sleep(0)

    assert ends == [getcurrent()]


@pytest.mark.parametrize("is_cut", [True, False])
def test_what_a_request_leaves_behind_is_free(is_cut: bool) -> None:
    outcomes: list[Any] = []

    def work() -> None:
        outcomes.append(ended(lambda: sleep(4 * SHORT_SECONDS, EVERYWHERE)))
        outcomes.append((deadline.remaining_seconds(), deadline.is_refused()))

    with deadline.budget(SHORT_SECONDS) as one:
        if is_cut:
            assert ended(lambda: sleep(NEVER_SECONDS)) is BudgetSpent
        left_behind = gevent.spawn(with_record, one, work)
        wait_until(lambda: one.waiting, "it waits") if is_cut else gevent.sleep(0)
    left_behind.join(LATE_SECONDS)

    assert outcomes == [None, (FOREVER, False)]


def test_request_that_never_waits_has_no_timer() -> None:
    one = Record(clock.now(), clock.now() + 10.0)

    one.finish()

    assert one.timer is None
    assert one.hub is None


def test_finished_request_refers_to_no_greenlet() -> None:
    """The greenlet serves the next one, unless somebody refers to it."""
    with deadline.budget(SHORT_SECONDS) as one:
        assert ended(lambda: sleep(NEVER_SECONDS)) is BudgetSpent

    assert (one.greenlet, one.timer, one.waiting, one.waits) == (None, None, {}, {})


def test_every_wait_of_gevent_switches_through_the_hub_class() -> None:
    """The choke point relies on this; gevent may change it."""
    near, far = green.socketpair()
    listener = green.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    waits: dict[str, Callable[[], Any]] = {
        "sleep": lambda: gevent.sleep(NEVER_SECONDS),
        "sleep(0)": lambda: gevent.sleep(0),
        "idle": gevent.idle,
        "event": Event().wait,
        "lock": lambda: locked().acquire(),
        "queue": lambda: gevent.queue.Queue().get(),
        "result": lambda: gevent.event.AsyncResult().get(),
        "join": lambda: gevent.spawn(gevent.sleep, 1).join(),
        "joinall": lambda: gevent.joinall([gevent.spawn(gevent.sleep, 1)]),
        "recv": lambda: near.recv(1),
        "accept": listener.accept,
        "wait_read": lambda: green.wait_read(far.fileno()),
        "threadpool": lambda: gevent.get_hub().threadpool.apply(int),
        "select": lambda: gevent.select.select([near], [], []),
    }
    missed = []
    for name, wait in waits.items():
        one = Record(clock.now())
        waiter: Any = gevent.spawn(with_record, one, wait)
        one.greenlet = waiter
        gevent.get_hub().loop.run_callback(gevent.getcurrent().switch)
        choke.plain_switch(gevent.get_hub())  # one turn, in which it begins
        if waiter not in one.waiting:
            missed.append(name)
        waiter.kill()
    for sock in (near, far, listener):
        sock.close()

    assert not missed
    assert Hub.switch is choke.switch


def locked() -> Any:
    held = lock.BoundedSemaphore()
    held.acquire()
    return held
