"""The limit of a run, as far as it can be told without the server's own words."""

from typing import Any

from greenroom.load.arrivals import constant
from greenroom.load.causes import cause_of, limited_by
from greenroom.load.expectations import parse
from greenroom.load.result import Facts, document
from greenroom.load.tally import GOOD, Tally

from ..ops import fakes


def stopped(answered: int, latency_seconds: float) -> dict[str, Any]:
    """A run of 200 requests a second that was stopped after a second."""
    tally = Tally(constant(200, 20.0).seconds)
    for number in range(200):
        tally.second(number / 200).asked += 1
        tally.planned += 1
    for number in range(answered):
        tally.ended("GET /", number / 200, min(0.999, number / 200 + latency_seconds), GOOD, 100)
    facts = Facts(tally, 1.0, 0.1, 200 - answered, "p99<10ms cannot hold any more", 200.0, (parse("p99<10ms"),))
    return document(facts)


def test_what_was_sent_last_before_the_end_is_no_shortfall() -> None:
    assert "keeps up with" in (limited_by(stopped(180, 0.1), []) or "")


def test_a_server_that_answers_less_than_it_is_asked_is_named_though_it_was_stopped() -> None:
    said = limited_by(stopped(120, 0.1), [])

    assert said is not None
    assert "of the 200/s that were asked" in said


def test_a_second_of_the_report_has_the_servers_verdict_with_its_advice() -> None:
    busy = fakes.seen(said=fakes.snapshot(in_flight=[fakes.request() for _ in range(9)]))
    view = fakes.shown(busy)

    row = cause_of(view)

    assert row["advice"]
    assert (row["verdict"], row["advice"]) == (view["verdict"]["sentence"], view["verdict"]["do"])
    assert row["in_flight"] == view["total"]["in_flight"]
