"""Locks: the requests that wait for ever, and the code that took the lock they wait for."""

import gc
import logging
from typing import Any

import gevent
import pytest
from greenlet import getcurrent

from greenroom.in_flight import CURRENT
from greenroom.insight.locks import MOST_DEADLOCKS, MOST_MEMBERS, Deadlock, Locks, Waiter
from greenroom.waits.stdlib import locks

CODE = compile("", "views.py", "exec")


class Lock:
    def __init__(self, owner: Any, record: Any = None) -> None:
        self.note = None if owner is None else (owner, record, CODE, 0)


class Greenlet:
    """A greenlet that waits."""

    def __init__(self, *, is_dead: bool = False) -> None:
        self.dead = is_dead
        self.gr_frame = None


class Account:
    id = "id-1"
    greenlet = None

    def pattern(self) -> str:
        return "/leak"


def waiting(*waits: tuple[Greenlet, Lock]) -> Locks:
    found = Locks(now=lambda: 100.0)
    for number, (one, lock) in enumerate(waits):
        found.waiting[one] = Waiter(one, lock, 90.0 + number / 1000, None)
    return found


def deadlocks(*waits: tuple[Greenlet, Lock]) -> list[Deadlock]:
    return waiting(*waits).deadlocks()


def test_circle_is_found_once_with_all_its_members_and_not_those_who_wait_for_it() -> None:
    a, b, c, d = (Greenlet() for _ in range(4))

    (found,) = deadlocks((d, Lock(a)), (a, Lock(b)), (b, Lock(c)), (c, Lock(a)))

    assert found.kind == "circle"
    assert {member.greenlet for member in found.members} == {a, b, c}
    said = found.as_dict(100.0)
    assert said["since_seconds"] == pytest.approx(10.0, abs=0.01)
    assert (said["waiting"], len(said["members"])) == (3, 3)


def test_lock_whose_holder_has_ended_is_one_deadlock_however_many_wait() -> None:
    lock = Lock(Greenlet(is_dead=True), Account())

    (found,) = deadlocks(*((Greenlet(), lock) for _ in range(500)))

    said = found.as_dict(100.0)
    assert (said["kind"], said["waiting"], said["since_seconds"]) == ("orphan", 500, 10.0)
    assert len(said["members"]) == MOST_MEMBERS
    first = said["members"][0]
    assert (first["waits_for"], first["waits_for_route"], first["taken_at"]) == ("id-1", "/leak", "views.py:1")


def test_lock_that_is_taken_again_by_its_holder_is_found() -> None:
    a = Greenlet()

    (found,) = deadlocks((a, Lock(a)))

    assert found.kind == "self"


def test_waiting_for_somebody_who_works_is_no_deadlock() -> None:
    a, b = Greenlet(), Greenlet()

    assert deadlocks((a, Lock(b)), (b, Lock(None))) == []


def test_ten_thousand_who_wait_in_a_row_are_walked_through_once() -> None:
    row = [Greenlet() for _ in range(10_000)]
    looked: list[int] = []

    class Counting(Lock):
        def __getattribute__(self, name: str) -> Any:
            looked.append(1)
            return super().__getattribute__(name)

    assert deadlocks(*((one, Counting(following)) for one, following in zip(row, row[1:], strict=False))) == []
    assert len(looked) < 5 * len(row)


def test_deadlocks_are_logged_once_and_few_of_them(caplog: pytest.LogCaptureFixture) -> None:
    found = waiting(*((Greenlet(), Lock(Greenlet(is_dead=True), Account())) for _ in range(500)))

    with caplog.at_level(logging.ERROR, "gunicorn.error"):
        found.report()
        found.report()

    assert len(caplog.records) == MOST_DEADLOCKS + 1
    assert caplog.records[0].getMessage().startswith("lock held by a greenlet that has ended: lock 0x")
    assert "taken at views.py:1 by request id-1; 1 wait for it" in caplog.records[0].getMessage()
    assert "490 more" in caplog.records[-1].getMessage()


def test_who_joins_those_who_wait_for_a_lock_is_not_reported_again(caplog: pytest.LogCaptureFixture) -> None:
    lock = Lock(Greenlet(is_dead=True), Account())
    found = waiting((Greenlet(), lock))
    found.report()
    one = Greenlet()
    found.waiting[one] = Waiter(one, lock, 95.0, None)

    found.report()

    assert len(caplog.records) == 1


class Stage:
    """Locks as they are in a worker, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 0.0
        self.locks = Locks(now=lambda: self.at)
        monkeypatch.setattr(locks, "observer", self.locks)

    def lock(self) -> locks.Lock:
        return locks.Lock()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def line_of(text: str) -> str:
    with open(__file__) as source:
        (number,) = (number for number, line in enumerate(source, 1) if line.endswith(f"# {text}\n"))
    return f"test_locks.py:{number}"


def test_lock_remembers_who_took_it_and_at_what_line(stage: Stage) -> None:
    lock = stage.lock()
    token = CURRENT.set(Account())  # type: ignore[arg-type]

    with lock:  # the line that takes it
        said = Waiter(Greenlet(), lock, 0.0, None).as_dict(1.0)
        owner = lock.note
    CURRENT.reset(token)

    assert owner[0] is getcurrent()
    assert (said["waits_for"], said["waits_for_route"]) == ("id-1", "/leak")
    assert said["taken_at"].endswith(line_of("the line that takes it"))
    assert lock.note is None


def test_greenlet_may_be_nothing_but_the_taking_of_a_lock(stage: Stage) -> None:
    lock = stage.lock()

    assert gevent.spawn(lock.acquire).get(timeout=5)
    assert lock.locked()


def test_lock_that_the_garbage_collector_takes_again_is_found_with_both_lines(stage: Stage) -> None:
    lock = stage.lock()

    class Collected:
        def __del__(self) -> None:
            lock.acquire(timeout=0.05)  # the line in the garbage collector

    def view() -> None:
        gc.disable()  # it comes when it is called
        garbage: Any = Collected()
        garbage.itself = garbage
        del garbage
        with lock:  # the line that it runs in
            gc.collect()
        gc.enable()

    def look() -> list[Deadlock]:
        stage.at = 100.0
        return stage.locks.deadlocks()

    viewing, looking = gevent.spawn(view), gevent.spawn(look)
    gevent.joinall([looking], timeout=5)
    (deadlock,) = looking.value
    said = deadlock.as_dict(100.0)["members"][0]
    viewing.get(timeout=10)

    assert deadlock.kind == "self"
    assert said["taken_at"].endswith(line_of("the line that it runs in"))
    assert any(line_of("the line in the garbage collector") in call for call in said["stack"])
    assert stage.locks.waiting == {}


def test_wait_that_interrupts_the_beginning_of_another_leaves_that_one_noted(stage: Stage) -> None:
    lock = stage.lock()
    lock.acquire()
    greenlet = gevent.spawn(lock.acquire, timeout=0.01)
    outer = stage.locks.waiting[greenlet] = Waiter(greenlet, stage.lock(), 0.0, None)

    assert not greenlet.get(timeout=5)

    assert stage.locks.waiting == {greenlet: outer}
