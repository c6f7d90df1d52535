"""The generator without a server that answers: how it ends when it can not keep up."""

import socket

from greenroom.load import arrivals, target
from greenroom.load.plan import Plan, run
from greenroom.load.request import Request


def test_run_ends_when_nothing_that_is_due_has_time_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as never:
        there = target.resolved(target.parse(f"http://127.0.0.1:{never.getsockname()[1]}/"))
        shape = arrivals.constant(1_000_000, 2.0)

        said = run(Plan(there, (Request(),), shape=shape, timeout_seconds=0.05, connections=1))

    assert said["planned"] < shape.count
    assert not said["valid"]
    assert not said["stopped"]
    assert any("could not be sent" in problem for problem in said["problems"])
