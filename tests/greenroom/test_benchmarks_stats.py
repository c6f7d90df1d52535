"""benchmarks/stats.py: percentiles, medians over rounds, ratios."""

import math

import pytest

from benchmarks.stats import Round, median_known, percentile, ratio, summarize


def a_round(server: str, number: int = 1, **values: object) -> Round:
    given = {
        "route": "plain",
        "seconds": 5.0,
        "completed": 500,
        "requests_per_second": 100.0,
        "p50_ms": 10.0,
        "p90_ms": 15.0,
        "p99_ms": 20.0,
        "max_ms": 30.0,
        **values,
    }
    return Round(server=server, number=number, **given)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (1, 1.0), (50, 50.0), (50.1, 51.0), (99, 99.0), (99.5, 100.0), (100, 100.0)]
)
def test_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    shuffled = [float(value) for value in [*range(51, 101), *range(1, 51)]]

    assert percentile(shuffled, percent) == expected


def test_percentile_of_two_values_is_one_of_them() -> None:
    assert percentile([100.0, 30_000.0], 99) == 30_000.0
    assert percentile([100.0, 30_000.0], 50) == 100.0


def test_percentile_of_nothing_is_unknown() -> None:
    assert math.isnan(percentile([], 50))


def test_summary_takes_the_median_of_the_rounds_so_one_bad_round_changes_nothing() -> None:
    rounds = [
        a_round("sync", 1, requests_per_second=100.0, p99_ms=20.0),
        a_round("sync", 2, requests_per_second=7.0, p99_ms=900.0),
        a_round("sync", 3, requests_per_second=104.0, p99_ms=22.0),
    ]

    (summary,) = summarize(rounds, baseline="sync")

    assert (summary.requests_per_second, summary.p99_ms) == (100.0, 22.0)


def test_cpu_of_a_request_is_the_median_of_the_rounds_and_unknown_where_nothing_was_answered() -> None:
    rounds = [
        a_round("sync", 1, requests_per_second=1000.0, server_cpu_ratio=0.5),
        a_round("sync", 2, requests_per_second=100.0, server_cpu_ratio=0.06),
        a_round("sync", 3, requests_per_second=0.0, server_cpu_ratio=0.5),
    ]

    (summary,) = summarize(rounds, baseline="sync")

    assert summary.cpu_microseconds == pytest.approx(550.0)
    assert summary.as_dict()["cpu_microseconds"] == pytest.approx(550.0)
    assert rounds[2].as_dict()["cpu_microseconds"] is None


def test_summary_adds_up_the_errors_of_all_rounds() -> None:
    rounds = [
        a_round("sync", 1, errors={"timeout": 2}),
        a_round("sync", 2),
        a_round("sync", 3, errors={"timeout": 1, "wrong body": 4}),
    ]

    (summary,) = summarize(rounds, baseline="sync")

    assert summary.errors == {"timeout": 3, "wrong body": 4}
    assert summary.error_count == 7


def test_summary_keeps_the_highest_use_of_the_load_side() -> None:
    rounds = [
        a_round("sync", 1, generator_cpu_ratio=0.2, load_cores_busy_ratio=0.5),
        a_round("sync", 2, generator_cpu_ratio=0.9, load_cores_busy_ratio=0.4),
    ]

    (summary,) = summarize(rounds, baseline="sync")

    assert (summary.generator_cpu_ratio, summary.load_cores_busy_ratio) == (0.9, 0.5)


def test_ratios_are_taken_against_the_baseline_on_the_same_route() -> None:
    rounds = [
        a_round("sync", requests_per_second=10.0),
        a_round("gevent", requests_per_second=400.0),
        a_round("sync", route="upstream", requests_per_second=20.0),
        a_round("gevent", route="upstream", requests_per_second=30.0),
    ]

    found = {(one.route, one.server): one.requests_per_second_ratio for one in summarize(rounds, baseline="sync")}

    assert found == {
        ("plain", "sync"): 1.0,
        ("plain", "gevent"): 40.0,
        ("upstream", "sync"): 1.0,
        ("upstream", "gevent"): 1.5,
    }


def test_without_a_baseline_there_are_no_ratios() -> None:
    (summary,) = summarize([a_round("gevent")], baseline="sync")

    assert summary.requests_per_second_ratio is None


def test_ratio_to_nothing_is_unknown() -> None:
    assert ratio(10.0, 0.0) is None
    assert ratio(10.0, math.nan) is None


def test_a_round_without_answers_does_not_hide_the_others_from_the_median() -> None:
    assert median_known([math.nan, 10.0, 30.0]) == 20.0


def test_unknown_latency_is_null_in_json_terms() -> None:
    document = a_round("sync", p50_ms=math.nan).as_dict()

    assert document["p50_ms"] is None
    assert document["p99_ms"] == 20.0
