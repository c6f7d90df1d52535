"""The generator without a server that answers: how it ends when it can not keep up."""

import itertools
import socket

from greenroom.load import arrivals, target
from greenroom.load.plan import Plan
from greenroom.load.request import Request


def test_run_ends_when_nothing_that_is_due_has_time_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as never:
        there = target.resolved(target.parse(f"http://127.0.0.1:{never.getsockname()[1]}/"))
        shape = arrivals.constant(1_000_000, 2.0)
        engine = Plan(there, (Request(),), shape=shape, timeout_seconds=0.05, connections=1).engine()
        looks = itertools.count()
        engine.now = lambda: next(looks) / 1000  # a millisecond for each request: a thousandth of the rate

        tally = engine.run()

    assert shape.count == 2_000_000
    assert 1000 < tally.planned < 10_000
    assert sum(tally.unsent.values()) > 0.9 * tally.planned
    assert not engine.stopped
