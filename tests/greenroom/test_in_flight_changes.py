"""Budgets that change while their request runs or waits."""

from collections.abc import Callable

import gevent
import gevent.queue
import gevent.select
import pytest

from greenroom import deadline
from greenroom.errors import BudgetSpent
from greenroom.in_flight import CLIENT_LEFT, WORKER_STOPS, Record

from .waiting import NEVER_SECONDS, SHORT_SECONDS, ended, sleep


@pytest.mark.parametrize("change", [lambda one: one.set(None), lambda one: one.extend(60.0), lambda one: one.lift()])
@pytest.mark.parametrize("by", ["itself", "another greenlet"])
def test_budget_that_changes_does_so_for_waits(change: Callable[[Record], None], by: str) -> None:
    told: list[Record] = []
    with deadline.budget(2 * SHORT_SECONDS) as one:
        one.on_end = told.append
        gevent.sleep(0)
        if by == "itself":
            change(one)
        else:
            gevent.spawn(change, one)
        assert ended(lambda: sleep(4 * SHORT_SECONDS)) is None

    assert not told


def test_budget_that_is_shortened_while_the_request_waits_ends_it() -> None:
    with deadline.budget(NEVER_SECONDS) as one:
        gevent.spawn_later(SHORT_SECONDS, one.set, SHORT_SECONDS)

        assert ended(lambda: sleep(NEVER_SECONDS)) is BudgetSpent


@pytest.mark.parametrize("change", [lambda one: one.set(10.0), lambda one: one.extend(10.0), lambda one: one.lift()])
def test_budget_once_spent_stays_spent(change: Callable[[Record], None]) -> None:
    with deadline.budget(0.0) as one:
        change(one)

        assert ended(lambda: sleep(NEVER_SECONDS)) is BudgetSpent


def test_request_that_became_something_else_is_not_ended() -> None:
    told: list[Record] = []
    with deadline.budget(SHORT_SECONDS) as one:
        one.on_end = told.append
        one.release("websocket")
        one.cut(CLIENT_LEFT)
        one.cut(WORKER_STOPS, 0.0)

        assert ended(lambda: sleep(3 * SHORT_SECONDS)) is None

    assert not told
    assert not one.is_ended
