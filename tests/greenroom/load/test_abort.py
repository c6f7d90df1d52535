"""--abort-on-fail: a run ends when an expectation, of all requests or of one route, cannot hold any more."""

import pytest

from greenroom.load import arrivals
from greenroom.load.expectations import parse
from greenroom.load.plan import Plan, hopeless
from greenroom.load.request import Request
from greenroom.load.tally import GOOD
from greenroom.load.target import Target


@pytest.mark.parametrize(
    ("text", "slow", "is_over"),
    [
        ("p50[/slow]<10ms", 60, True),  # 60 of at most 90 of this route
        ("p50[/slow]<10ms", 30, False),
        ("p50[/quick]<10ms", 60, False),
        ("p50<10ms", 60, True),
        ("max[GET /slow]<10ms", 1, True),
        ("max[/nothing]<10ms", 60, False),
    ],
)
def test_hopeless_is_known_for_each_route(text: str, slow: int, is_over: bool) -> None:
    kinds = tuple(Request("GET", path, {}, b"", f"GET {path}", 1.0) for path in ("/slow", "/quick"))
    plan = Plan(Target("http", "127.0.0.1", 80, "/"), kinds, arrivals.constant(10, 10.0), expectations=(parse(text),))
    engine = plan.engine()
    for _ in range(slow):
        engine.tally.ended("GET /slow", 0.0, 0.05, GOOD, 100)
    for _ in range(10):
        engine.tally.ended("GET /quick", 0.0, 0.001, GOOD, 100)

    assert (hopeless(plan, engine) is not None) == is_over
