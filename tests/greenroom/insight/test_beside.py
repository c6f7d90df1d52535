"""Greenlets that compute beside the requests are told with their line and their share of the time."""

import weakref

import greenlet
import pytest

from greenroom.insight.beside import Beside


class Now:
    at = 100.0

    def __call__(self) -> float:
        return self.at


def wait() -> None:
    greenlet.getcurrent().parent.switch()  # type: ignore[union-attr]


def test_share_and_line_of_a_greenlet_that_computes() -> None:
    now = Now()
    beside = Beside(now)
    busy, dead = greenlet.greenlet(wait), greenlet.greenlet(lambda: None)
    busy.switch()
    dead.switch()
    known = {id(one): weakref.ref(one) for one in (busy, dead)}

    for _ in range(40):
        now.at += 1.0
        spent = {id(busy): 0.6, id(dead): 0.3, 12345: 0.9}
        beside.tick(spent, known)
        assert spent == {}

    (row,) = beside.rows
    assert row["share"] == pytest.approx(0.6, abs=0.02)
    assert row["line"].endswith(f"test_beside.py:{wait.__code__.co_firstlineno + 1}")
    for _ in range(30):
        now.at += 1.0
        beside.tick({}, known)
    assert beside.rows == []
    busy.switch()
