import time

from greenroom import clock
from greenroom.waits import sqlite_statements
from greenroom.waits.slow_statements import SLOW_SECONDS, SlowStatements


def test_statement_is_known_from_when_it_was_slow_until_it_is_quick() -> None:
    slow = SlowStatements(slow_seconds=0.01)

    slow.took("SELECT a", 0.009)
    assert "SELECT a" not in slow.known
    slow.took("SELECT a", 0.01)
    assert "SELECT a" in slow.known
    slow.took("SELECT a", 0.006)  # nearly as long
    assert "SELECT a" in slow.known
    slow.took("SELECT a", 0.001)
    assert "SELECT a" not in slow.known


def test_those_that_were_slow_longest_ago_are_forgotten() -> None:
    slow = SlowStatements(slow_seconds=0.01, most=2)

    for statement in ("a", "b", "a", "c"):
        slow.took(statement, 1.0)

    assert [statement in slow.known for statement in "abc"] == [True, False, True]


def test_what_waits_or_is_kept_waiting_is_not_slow() -> None:
    slow = SlowStatements(slow_seconds=SLOW_SECONDS)
    took = sqlite_statements.Took()

    def compute() -> None:
        until = time.thread_time() + 2 * SLOW_SECONDS
        while time.thread_time() < until:
            pass

    for statement, call in (("waits", lambda: time.sleep(2 * SLOW_SECONDS)), ("computes", compute)):
        began = clock.now()
        said = took.ask(began)
        call()
        took.long(slow, statement, began, said)

    assert list(slow.known) == ["computes"]
