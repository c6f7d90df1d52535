"""greenroom/load/validity.py: when the numbers are the generator's, and what it says then."""

import pytest

from greenroom.load.expectations import parse
from greenroom.load.histogram import Histogram
from greenroom.load.tally import Tally
from greenroom.load.validity import judge


def tally(late_ms: float = 0.1, planned: int = 1000) -> Tally:
    made = Tally(10.0)
    made.planned = planned
    for _ in range(planned):
        made.lateness.record(late_ms / 1000)
    return made


def latency(milliseconds: float) -> Histogram:
    made = Histogram()
    for _ in range(1000):
        made.record(milliseconds / 1000)
    return made


def test_run_in_which_all_left_in_time_is_valid() -> None:
    assert judge(tally(), latency(5), 0.3, is_expected=False).is_valid


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("no free descriptor", "ulimit -n"),
        ("no free port", "leave out --new-connections"),
        ("no time", "--locustfile"),
        ("no free connection", "raise --connections"),
    ],
)
def test_requests_that_were_not_sent_are_the_generators(kind: str, advice: str) -> None:
    made = tally()
    made.unsent[kind] = 2

    problems = judge(made, latency(5), 0.3).problems

    assert problems[0].startswith(f"2 of 1000 requests could not be sent: {kind}; ")
    assert advice in problems[0]


def test_what_held_in_spite_of_lateness_holds() -> None:
    assert judge(tally(late_ms=50), latency(60), 0.3).is_valid


def test_expectation_that_lateness_broke_is_not_judged() -> None:
    expectation = parse("p99<300ms")

    blamed = judge(tally(late_ms=30), latency(320), 0.99, [(expectation, 0.32)])
    clear = judge(tally(late_ms=30), latency(400), 0.99, [(expectation, 0.4)])

    assert "p99<300ms might have held without the generator" in blamed.problems[0]
    assert "99% of a core, which is all that it can" in blamed.problems[0]
    assert clear.is_valid


def test_load_that_came_much_later_was_another_load() -> None:
    assert "other programs took the CPU" in judge(tally(late_ms=200), latency(250), 0.2).problems[0]
    assert judge(tally(late_ms=200), latency(5000), 0.2).is_valid


def test_numbers_that_nobody_judges_must_be_the_servers() -> None:
    assert not judge(tally(late_ms=30), latency(60), 0.3, is_expected=False).is_valid
    assert judge(tally(late_ms=30), latency(600), 0.3, is_expected=False).is_valid


def test_connections_that_waited_for_descriptors_are_told() -> None:
    made = tally()
    made.waited, made.is_short_of_descriptors = 10, True

    assert "10 of 1000 requests waited for a free descriptor" in judge(made, latency(5), 0.3).problems[0]
