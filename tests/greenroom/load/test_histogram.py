"""greenroom/load/histogram.py: three digits, exact counts, and merging that loses nothing."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.load.histogram import Histogram, highest_of, index_of, lowest_of, merged


@given(st.integers(min_value=0, max_value=10**12))
def test_bucket_holds_its_value_to_a_thousandth(value: int) -> None:
    index = index_of(value)

    assert lowest_of(index) <= value <= highest_of(index)
    assert highest_of(index) - lowest_of(index) <= value / 1000


def test_buckets_leave_no_gap() -> None:
    assert all(highest_of(index) + 1 == lowest_of(index + 1) for index in range(20_000))


def test_percentiles_are_those_of_the_values() -> None:
    chance = random.Random(7)
    values = sorted(chance.lognormvariate(-4, 1.5) for _ in range(10_000))
    histogram = Histogram()
    for value in values:
        histogram.record(value)

    for percent in (1, 50, 90, 95, 99, 99.9):
        assert histogram.percentile(percent) == pytest.approx(values[int(len(values) * percent / 100) - 1], rel=0.002)
    assert histogram.percentile(100) == values[-1]
    assert histogram.mean() == pytest.approx(sum(values) / len(values))


def test_nothing_has_no_percentile() -> None:
    assert Histogram().percentile(99) is None
    assert Histogram().mean() is None


@given(st.lists(st.lists(st.floats(min_value=0, max_value=1e4))))
def test_merged_is_as_if_recorded_in_one(parts: list[list[float]]) -> None:
    one = Histogram()
    histograms = []
    for part in parts:
        histograms.append(Histogram())
        for value in part:
            one.record(value)
            histograms[-1].record(value)

    whole = merged(histograms)

    assert (whole.counts, whole.count, whole.largest) == (one.counts, one.count, one.largest)
    assert Histogram.from_json(json.loads(json.dumps(whole.as_json()))).counts == one.counts


def test_above_counts_what_is_surely_above() -> None:
    histogram = Histogram()
    for milliseconds in (100, 299, 300, 301, 900):
        histogram.record(milliseconds / 1000)

    assert histogram.above(0.3) == 2
