"""greenroom/load/expectations.py: what is said, what holds, and what cannot hold any more."""

import pytest

from greenroom.load.expectations import parse
from greenroom.load.tally import GOOD, Route, Tally
from greenroom.load.units import LoadError


def measured(milliseconds: list[float], errors: int = 0, shed: int = 0) -> Route:
    tally = Tally(10.0)
    for value in milliseconds:
        tally.second(0.0)
        tally.ended("GET /", 0.0, value / 1000, GOOD, 100)
    for _ in range(errors):
        tally.ended("GET /", 0.0, 0.001, "status 500", 0)
    route = tally.whole()
    route.shed += shed
    return route


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("p50<51ms", True),
        ("p50<50ms", False),
        ("p99 <= 0.1s", True),
        ("p99.9<90ms", False),
        ("max<101ms", True),
        ("mean<50ms", False),
        ("errors<10%", True),
        ("errors<0.1%", False),
        ("errors<2/s", True),
        ("shed=0", True),
        ("good>90%", True),
        ("rate>10/s", True),
        ("rate>11/s", False),
    ],
)
def test_expectation_holds_or_not(text: str, holds: bool) -> None:
    route = measured([float(value) for value in range(1, 101)], errors=10)
    expectation = parse(text)

    assert expectation.holds(expectation.value(route, 10.0)) is holds


def test_of_nothing_nothing_holds() -> None:
    expectation = parse("p99<300ms")

    assert not expectation.holds(expectation.value(Route(), 10.0))


def test_route_is_named_in_brackets() -> None:
    assert (parse("p95[search]<200ms").route, parse("p95{GET /a}<1s").route) == ("search", "GET /a")


def test_it_cannot_hold_once_more_are_slow_than_the_percentile_allows() -> None:
    expectation = parse("p99<300ms")

    assert not expectation.cannot_hold(measured([400.0] * 10), planned=1000)
    assert expectation.cannot_hold(measured([400.0] * 11), planned=1000)


@pytest.mark.parametrize(
    ("text", "errors", "cannot"),
    [("errors<1%", 10, False), ("errors<1%", 11, True), ("good>99%", 11, True), ("max<1s", 0, False)],
)
def test_shares_are_of_all_that_is_planned(text: str, errors: int, cannot: bool) -> None:
    assert parse(text).cannot_hold(measured([1.0], errors=errors), planned=1000) is cannot


@pytest.mark.parametrize(
    "text", ["p99", "p99<", "<300ms", "p99<3", "p99<3kg", "errors<3", "rate>5%", "p199<1s", "x<1s"]
)
def test_what_is_no_expectation_is_refused(text: str) -> None:
    with pytest.raises(LoadError):
        parse(text)
