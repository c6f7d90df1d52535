"""The watch thread's snapshot, taken while the hub's thread does whatever it likes."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from greenlet import getcurrent, greenlet

from greenroom import clock
from greenroom.in_flight import Wait
from greenroom.insight.account import Account
from greenroom.insight.facts import MOST_WAITING, again, waiting_for
from greenroom.insight.observer import Insight
from greenroom.insight.recent import records_in
from greenroom.insight.snapshot import remembered, snapshot, stacks
from greenroom.settings import Settings
from greenroom.worker.balance import Scoreboard
from greenroom.worker.gates import AdaptiveGate
from greenroom.worker.load import Turns

from .accounts import wait_in


@pytest.fixture
def worker() -> Iterator[Any]:
    """A worker that serves, as far as a snapshot looks."""
    hub = gevent.get_hub()
    board, owner = Scoreboard(2), SimpleNamespace()
    owner_with_weakref = _Owner()
    serving = SimpleNamespace(
        hub=hub,
        loop=hub.loop,
        turns=Turns(hub.loop, lambda _: None, lambda: None),
        gate=AdaptiveGate(),
        sharing=None,
        spin_watch=SimpleNamespace(is_spinning=False),
        admission=SimpleNamespace(waiting=0, line_seconds=0.0, shed_requests=0, left_requests=0, queued_requests=0),
        connections=set(),
        in_flight={},
        spent_requests=0,
        abandoned_requests=0,
        settings=Settings(),
        has_access_log=False,
    )
    serving.insight = Insight(serving, Settings())
    owner.serving, owner.line, owner.nr = serving, board.take(owner_with_weakref), 0
    yield owner
    serving.insight.stalls.stop()


class _Owner:
    pass


def in_flight(insight: Insight, number: int) -> Account:
    account = Account(clock.now())
    account.id = f"id-{number}"
    account.environ = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/{number}", "QUERY_STRING": "token=secret"}
    wait_in(account, Wait("upstream", "api.example:443"))
    insight.slices.live[account] = None
    return account


def test_snapshot_is_json_without_anything_that_is_secret(worker: Any) -> None:
    in_flight(worker.serving.insight, 1)

    text = json.dumps(snapshot(worker))

    assert "secret" not in text
    said = json.loads(text)
    assert said["start_id"]
    assert said["in_flight_states"] == {"upstream": 1}
    assert said["in_flight"][0]["waits"][0]["detail"] == "api.example:443"
    assert set(said) >= {
        "loop",
        "routes",
        "upstreams",
        "pools",
        "stalls",
        "held",
        "locks",
        "greenlets",
        "seconds",
        "le",
    }


def test_ten_thousand_requests_in_flight_are_counted_and_few_are_listed(worker: Any) -> None:
    for number in range(10_000):
        in_flight(worker.serving.insight, number)

    began = time.thread_time()
    said = snapshot(worker)
    took = time.thread_time() - began

    assert said["in_flight_states"] == {"upstream": 10_000}
    assert [row["count"] for row in said["waiting"]] == [10_000]
    assert len(said["in_flight"]) == 200
    assert said["in_flight"][0]["id"] == "id-0"
    assert len(json.dumps(said)) < 300_000
    assert took < 0.5


def test_what_is_waited_for_is_added_up_and_the_rare_things_together() -> None:
    rows = waiting_for(
        [("query", f"SELECT {number}", 9.0) for number in range(30)]
        + [("upstream", f"h{number}", float(number)) for number in range(5000)]
        + [("pool", "", 1.0)]
    )

    assert rows[0] == {
        "state": "upstream", "detail": "", "count": 5000 - 48, "middle_seconds": 2524.0, "longest_seconds": 4999.0
    }  # fmt: skip
    assert rows[1] == {
        "state": "query", "detail": "SELECT ?", "count": 30, "middle_seconds": 9.0, "longest_seconds": 9.0
    }  # fmt: skip
    assert sum(row["count"] for row in rows) == 5031
    assert len(rows) <= MOST_WAITING + 2


def test_a_lock_that_is_asked_for_again_and_again_is_waited_for_since_the_first_time(worker: Any) -> None:
    account = in_flight(worker.serving.insight, 1)
    wait_in(account, Wait("lock", "flock"), since=clock.now() - 5.0)
    account.since = clock.now()

    said = snapshot(worker)

    assert said["waiting"][0]["longest_seconds"] >= 5.0
    assert said["in_flight"][0]["state_seconds"] >= 5.0


def test_snapshot_can_be_taken_while_requests_come_and_go(worker: Any) -> None:
    insight = worker.serving.insight
    taken: list[int] = []
    failures: list[BaseException] = []
    is_over = threading.Event()

    def look() -> None:
        try:
            while not is_over.is_set():
                taken.append(len(snapshot(worker)["in_flight"]))
        except BaseException as exc:  # shown by the test
            failures.append(exc)

    thread = threading.Thread(target=look)
    old, number = sys.getswitchinterval(), 0
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        give_up_at = time.monotonic() + 30
        while len(taken) < 20 and not failures and time.monotonic() < give_up_at:
            number += 1
            account = in_flight(insight, number)
            account.environ["werkzeug.request"] = SimpleNamespace(url_rule=SimpleNamespace(rule=f"/{number % 97}"))
            account.hosts = {f"host-{number}": 0.1}
            insight.slices.finish(account)
            insight.routes.add(account, 200)
    finally:
        is_over.set()
        thread.join(30)
        sys.setswitchinterval(old)

    assert not failures
    assert len(taken) >= 20


def test_what_is_remembered_has_the_requests_without_an_answer(worker: Any) -> None:
    insight = worker.serving.insight
    account = in_flight(insight, 1)
    account.began -= 5.0
    account.environ["werkzeug.request"] = SimpleNamespace(url_rule=SimpleNamespace(rule="/slow"))
    insight.ring.finished("/", 200, clock.now(), 0.1, [0.1, *[0.0] * 10])

    rows = list(records_in(json.loads(json.dumps(remembered(insight)))))

    assert [(row["kind"], row["name"]) for row in rows] == [("request", "/"), ("in_flight", "/slow")]
    assert rows[1]["seconds"] == pytest.approx(5.0, abs=0.5)


def test_stacks_are_those_of_all_greenlets_of_the_request(worker: Any) -> None:
    account, parent = in_flight(worker.serving.insight, 1), getcurrent()

    def view() -> None:
        parent.switch()

    def helper() -> None:
        parent.switch()

    account.greenlet, child = greenlet(view), greenlet(helper)
    account.greenlet.switch()
    child.switch()
    account.adopt(child)

    said = stacks(worker, "id-1")

    assert said is not None
    assert [one["name"] for one in said["greenlets"]] == ["request", "greenlet"]
    assert "view" in said["greenlets"][0]["stack"][0]
    assert "helper" in said["greenlets"][1]["stack"][0]
    assert [one["own"] for one in said["greenlets"]] == [0, 0]  # the innermost that is of no package
    assert stacks(worker, "id-2") is None
    account.greenlet.throw()
    child.throw()


def test_what_changes_under_a_reader_is_read_again() -> None:
    tries = []

    def read() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("dictionary changed size during iteration")
        return "read"

    assert again(read) == "read"
