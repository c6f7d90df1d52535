"""The servers of `python -m benchmarks capacity` have the capacity that is said of them."""

import pytest

from benchmarks.capacity import CASES, ERRORS
from benchmarks.known import KINDS, Slots, Slowing

SECONDS = 20


def waits(rule: Slots | Slowing, rate: float) -> list[float | None]:
    """For how long each request waits, None if it is refused, at a constant rate."""
    return [rule(number / rate) for number in range(int(rate * SECONDS))]


def fresh(kind: str) -> Slots | Slowing:
    known = KINDS[kind]
    if isinstance(known, Slots):
        return Slots(len(known.free_at), known.seconds, known.patience_seconds)
    return Slowing(known.seconds, known.easy, known.seconds_each)


@pytest.mark.parametrize("kind", ["refusing", "limited"])
def test_refuses_what_is_more(kind: str) -> None:
    known = CASES[kind].per_second

    def refused(rate: float) -> float:
        said = waits(fresh(kind), rate)
        return said.count(None) / len(said)

    assert refused(0.98 * known) < ERRORS < refused(1.05 * known)


@pytest.mark.parametrize(("kind", "within_seconds"), [("slots", 0.200), ("slowing", 0.171)])
def test_is_too_slow_with_more(kind: str, within_seconds: float) -> None:
    known = CASES[kind].per_second

    def slowest(rate: float) -> float:
        return max(wait for wait in waits(fresh(kind), rate) if wait is not None)

    assert slowest(0.99 * known) <= within_seconds < slowest(1.02 * known)


def test_each_has_a_known_answer() -> None:
    assert set(CASES) == set(KINDS)
