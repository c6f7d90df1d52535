"""The benchmark of insight's cost, with rounds that are made up."""

import pytest

from benchmarks.insight import WITHOUT, cost
from benchmarks.peers import OURS
from benchmarks.run import read_options
from benchmarks.stats import Round


def measured(server: str, number: int, rate: float, p99_ms: float, cpu_ratio: float = 1.0) -> Round:
    known = {"memory_bytes": 50_000_000, "server_cpu_ratio": cpu_ratio}
    return Round(server, "dict", number, 4.0, 1000, rate, 1.0, 2.0, p99_ms, 9.0, **known)  # type: ignore[arg-type]


def test_cost_is_the_median_of_rounds_side_by_side() -> None:
    rounds = [
        *(measured(WITHOUT.name, 1, 5000, 10), measured(OURS, 1, 4750, 10.5)),
        *(measured(OURS, 2, 2400, 20.5), measured(WITHOUT.name, 2, 2500, 20)),
        *(measured(WITHOUT.name, 3, 5000, 10), measured(OURS, 3, 1000, 90)),  # somebody else had the machine
    ]

    found = cost("dict", rounds)

    assert found is not None
    assert found.lost_ratio == pytest.approx(0.05)
    assert found.p99_ms == pytest.approx(0.5)
    assert found.microseconds == pytest.approx(16.7, abs=0.1)
    assert not found.is_within
    assert "5.0% of its requests/s" in found.sentence()


def test_cost_of_what_was_not_measured_is_not_known() -> None:
    assert cost("dict", [measured(OURS, 1, 5000, 10)]) is None


def test_insight_is_measured_on_the_dict_route_unless_others_are_named() -> None:
    assert read_options(["--insight"]).routes == ("dict",)
    assert read_options(["--insight", "--routes", "hello"]).routes == ("hello",)
