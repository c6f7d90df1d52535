"""Where a request's time goes: on a real loop, with blocking and waiting that are known."""

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextvars import Context

import gevent
import pytest
from greenlet import getcurrent, gettrace, greenlet

from greenroom import clock
from greenroom.in_flight import CURRENT, Record, Wait
from greenroom.insight.account import CPU, OTHER, READY, STATES, Account
from greenroom.insight.slices import Slices
from greenroom.worker.load import Turns

QUERY = STATES.index("query")
UPSTREAM = STATES.index("upstream")


class Loop:
    """The hub of this thread, with slices charged."""

    def __init__(self) -> None:
        self.hub = gevent.get_hub()
        self.long: list[tuple[float, Account | None]] = []
        self.turns = Turns(self.hub.loop, self._turned, lambda: None)
        self.slices = Slices(
            self.hub,
            self.turns,
            0.1,
            lambda began, ended, account, greenlet: self.long.append((ended - began, account)),
        )

    def _turned(self, idle_seconds: float) -> None:
        self.slices.turned(self.turns.ended_at, self.turns.began_at)

    def request(self, work: Callable[[], object]) -> Account:
        """Run `work` as a request's; returns at once."""
        account = Account(arrived=clock.now())

        def run() -> None:
            CURRENT.set(account)
            self.slices.begin(account)
            work()
            self.slices.finish(account)

        request = greenlet(run, self.hub)
        request.gr_context = Context()
        self.hub.loop.run_callback(request.switch)
        return account

    def wait_for(self, *accounts: Account) -> None:
        with gevent.Timeout(10):
            while not all(account.ended for account in accounts):
                gevent.sleep(0.001)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    loop.turns.start()
    loop.slices.install()
    gevent.sleep(0.01)
    yield loop
    loop.slices.remove()
    loop.turns.stop()


def busy(seconds: float) -> None:
    until = clock.now() + seconds
    while clock.now() < until:
        pass


def waits(kind: str, seconds: float, detail: str = "") -> None:
    with Wait(kind, detail):  # type: ignore[arg-type]
        gevent.sleep(seconds)


def test_states_add_up_to_the_total(loop: Loop) -> None:
    def work() -> None:
        busy(0.01)
        waits("query", 0.02)
        busy(0.005)
        waits("upstream", 0.03, "api.example:443")
        gevent.sleep(0.01)

    accounts = [loop.request(work) for _ in range(5)]
    loop.wait_for(*accounts)

    for account in accounts:
        assert sum(account.seconds) == pytest.approx(account.ended - account.began, rel=1e-6)
        assert account.seconds[CPU] >= 0.015
        # Half of it at least, but for the resolution: when it became ready while others ran is an estimate.
        assert account.seconds[QUERY] >= 0.009
        assert account.hosts is not None
        assert account.hosts["api.example:443"] == pytest.approx(account.seconds[UPSTREAM])
        assert account.seconds[OTHER] > 0.003


def test_who_could_run_and_stood_in_line_was_ready(loop: Loop) -> None:
    sleeper = loop.request(lambda: waits("query", 0.2))
    gevent.sleep(0)
    blocker = loop.request(lambda: busy(0.4))
    loop.wait_for(sleeper, blocker)

    # It became ready while the blocker ran, which nobody saw: the middle of that turn is taken.
    assert sleeper.seconds[READY] > 0.1
    assert sleeper.seconds[READY] + sleeper.seconds[QUERY] > 0.38
    assert sleeper.seconds[CPU] < 0.1


def test_woken_together_the_last_one_was_ready_all_the_time(loop: Loop) -> None:
    event = gevent.event.Event()

    def work() -> None:
        with Wait("lock"):
            event.wait()
        busy(0.02)

    accounts = [loop.request(work) for _ in range(10)]
    gevent.sleep(0.02)
    event.set()
    loop.wait_for(*accounts)

    assert max(account.seconds[READY] for account in accounts) > 0.15
    assert all(account.seconds[CPU] >= 0.019 for account in accounts)


def test_greenlets_that_it_started_are_charged_to_it(loop: Loop) -> None:
    def helper() -> None:
        busy(0.02)
        waits("upstream", 0.05, "api.example:443")

    def work() -> None:
        # As a thread that carries the context of whoever starts it.
        helpers = [gevent.Greenlet(helper) for _ in range(3)]
        for one in helpers:
            one.gr_context = Context()
            one.gr_context.run(CURRENT.set, CURRENT.get())
            one.start()
        with Wait("lock"):
            gevent.joinall(helpers)

    account = loop.request(work)
    loop.wait_for(account)

    assert account.seconds[CPU] >= 0.058
    # The main greenlet waits for those threads, so their waits count.
    assert account.seconds[UPSTREAM] >= 0.03
    assert account.seconds[STATES.index("lock")] < 0.02
    assert sum(account.seconds) == pytest.approx(account.ended - account.began, rel=1e-6)


def test_jobs_that_one_thread_does_are_each_charged_to_their_request(loop: Loop) -> None:
    accounts = [Account(arrived=clock.now()) for _ in range(2)]

    def work_for(account: Account) -> None:
        token = CURRENT.set(account)
        loop.slices.job_changed()
        busy(0.02)
        waits("upstream", 0.03, "api.example:443")
        assert loop.slices.running is account
        CURRENT.reset(token)
        loop.slices.job_changed()

    def thread() -> None:
        work_for(accounts[0])
        work_for(accounts[1])  # in the slice in which the first one ended
        busy(0.02)

    background_seconds = loop.slices.background_seconds
    one = gevent.spawn(thread)
    one.join()

    for account in accounts:
        assert 0.02 <= account.seconds[CPU]
        assert account.seconds[UPSTREAM] >= 0.02
        assert one in (account.helpers or {})
    assert loop.slices.background_seconds - background_seconds >= 0.02
    assert loop.slices.running is None


def test_long_slices_are_told_with_their_request(loop: Loop) -> None:
    def work() -> None:
        busy(0.15)
        gevent.sleep(0.001)
        busy(0.01)
        gevent.sleep(0.2)
        busy(0.2)

    account = loop.request(work)
    loop.wait_for(account)

    mine = [seconds for seconds, who in loop.long if who is account]
    assert len(mine) == 2
    assert mine[0] >= 0.15
    assert mine[1] >= 0.2


def test_idling_and_sleeping_are_not_long_slices(loop: Loop) -> None:
    account = loop.request(lambda: gevent.sleep(0.4))
    loop.wait_for(account)
    time.sleep(0)

    assert [seconds for seconds, _ in loop.long if seconds > 0.35] == []


def test_no_thread_of_mine_stays_in_a_request_that_is_over(loop: Loop) -> None:
    left_behind = []

    def work() -> None:
        helper = gevent.Greenlet(lambda: (gevent.sleep(0.05), busy(0.02)))
        helper.gr_context = Context()
        helper.gr_context.run(CURRENT.set, CURRENT.get())
        helper.start()
        left_behind.append(helper)

    account = loop.request(work)
    loop.wait_for(account)
    total = sum(account.seconds)
    gevent.joinall(left_behind)

    assert sum(account.seconds) == total
    assert loop.slices.background_seconds >= 0.019
    assert not loop.slices.live


def test_a_greenlet_without_a_frame_of_python_is_charged_to_no_request(loop: Loop) -> None:
    """greenlet can't tell its context, and an error in the trace function would end the tracing."""
    frameless = greenlet(getcurrent().switch)  # C alone: it comes straight back
    background_seconds = loop.slices.background_seconds

    frameless.switch()

    with pytest.raises(ValueError, match="different thread"):
        _ = frameless.gr_context
    assert gettrace() == loop.slices.switched
    assert loop.slices.background_seconds > background_seconds


def test_account_costs_less_than_two_kilobytes_of_memory() -> None:
    def kept(make: Callable[[], object]) -> float:
        gc.collect()
        tracemalloc.start()
        try:
            kept = [make() for _ in range(1000)]
            return tracemalloc.get_traced_memory()[0] / len(kept)
        finally:
            tracemalloc.stop()

    account, record = kept(lambda: Account(clock.now())), kept(lambda: Record(clock.now()))

    assert account - record < 1000
