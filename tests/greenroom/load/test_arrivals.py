"""greenroom/load/arrivals.py: as many arrivals as were asked for, when they were asked for."""

import random
import statistics

import pytest

from greenroom.load.arrivals import CONSTANT, POISSON, parse
from greenroom.load.units import LoadError


def moments(text: str, model: str = POISSON, seed: int = 1) -> list[float]:
    return list(parse(text, 10.0).moments(model, random.Random(seed)))


@pytest.mark.parametrize("model", [POISSON, CONSTANT])
@pytest.mark.parametrize(
    ("text", "count", "length"),
    [
        ("200", 2000, 10),
        ("1200/m", 200, 10),
        ("10..500/s over 60s", 15_300, 60),
        ("100,200,400/s each 30s", 21_000, 90),
        ("100/s spike 1000/s at 5s for 2s", 2800, 10),
        ("0 for 3s then 100/s for 2s then 0 for 1s", 200, 6),
        ("100/s for 5s then 0..100/s over 4s then 50/s for 2s", 800, 11),
    ],
)
def test_shape_has_exactly_its_requests_in_order(text: str, count: int, length: float, model: str) -> None:
    found = moments(text, model)

    assert len(found) == count
    assert found == sorted(found)
    assert 0 <= found[0]
    assert found[-1] <= length


def test_constant_arrivals_are_evenly_spaced() -> None:
    found = moments("100", CONSTANT)

    assert found[:3] == pytest.approx([0.005, 0.015, 0.025])


def test_poisson_pauses_vary_as_much_as_they_are_long() -> None:
    found = moments("1000")
    pauses = [later - earlier for earlier, later in zip(found, found[1:], strict=False)]

    assert statistics.stdev(pauses) == pytest.approx(statistics.mean(pauses), rel=0.05)


@pytest.mark.parametrize("model", [POISSON, CONSTANT])
def test_each_second_of_a_ramp_has_its_share(model: str) -> None:
    found = moments("0..1000/s over 10s", model)

    for second in range(10):
        here = sum(second <= moment < second + 1 for moment in found)
        assert here == pytest.approx(100 * second + 50, abs=5 * (100 * second + 50) ** 0.5)


def test_spike_is_where_it_was_asked_for() -> None:
    found = moments("10/s spike 500/s at 5s for 1s", CONSTANT)

    assert sum(5 <= moment < 6 for moment in found) == 500
    assert sum(moment < 5 for moment in found) == 50


def test_same_seed_same_moments() -> None:
    assert moments("50", seed=3) == moments("50", seed=3) != moments("50", seed=4)


@pytest.mark.parametrize(
    "text", ["fast", "10..500", "10/x", "-5", "0", "100/s spike 200/s at 9s for 2s", "5 for 0s", ""]
)
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(LoadError):
        parse(text, 10.0)


def test_rate_that_no_process_can_send_is_refused_with_what_to_do() -> None:
    with pytest.raises(LoadError, match="spread the load over more processes with --locustfile"):
        parse("1e9", 10.0)
