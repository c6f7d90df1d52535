"""greenroom/load/capacity.py on simulated servers: no socket, no clock, the right answer known exactly."""

import heapq
from collections.abc import Callable

import pytest

from greenroom.load.capacity import Capacity, Interrupted, Search, Trial, as_json, find, is_growing, lines
from greenroom.load.histogram import Histogram

Server = Callable[[float], tuple[float, bool]]


class Line:
    """`servers` at once, `service` seconds each, the others in line; above `longest` seconds of line it sheds."""

    def __init__(self, servers: int, service: float, longest: float = float("inf"), thrash: float = 0.0) -> None:
        self.free = [0.0] * servers
        self.service = service
        self.longest = longest
        self.thrash = thrash

    def __call__(self, due: float) -> tuple[float, bool]:
        """When the answer to a request of that moment comes, and whether it is a good one."""
        begin = max(due, self.free[0])
        if begin - due > self.longest:
            return due + 0.001, False
        waited = begin - due
        end = begin + self.service * (1 + self.thrash * min(waited, 1.0))
        heapq.heapreplace(self.free, end)
        return end, True


def measured(
    server: Callable[[], Server], limit: float, noise: Callable[[], float] = lambda: 1.0, generator: float = 1e9
) -> Callable[[float, float], Trial]:
    """A trial on a new simulated server with evenly spaced requests; held: p99 within `limit`, less than 1 % shed."""

    def measure(rate: float, seconds: float) -> Trial:
        answer = server()
        latency, ends, shed = Histogram(), [], 0
        by_second: list[Histogram] = [Histogram() for _ in range(max(1, round(seconds)))]
        count = round(rate * seconds)
        for number in range(count):
            due = (number + 0.5) / rate
            end, is_good = answer(due)
            if not is_good:
                shed += 1
                continue
            took = (end - due) * noise()
            latency.record(took)
            by_second[min(len(by_second) - 1, int(due))].record(took)
            ends.append(end)
        good = sum(end <= seconds + latency.smallest * 1.1 for end in ends)
        p99 = latency.percentile(99)
        held = p99 is not None and p99 < limit and shed < 0.01 * count and good >= 0.95 * count
        held = held and not is_growing([one.percentile(50) for one in by_second])
        return Trial(rate, good / seconds, held, rate <= generator, latency.percentile(50), p99)

    return measure


@pytest.mark.parametrize(
    ("servers", "service", "longest", "capacity"),
    [(1, 0.010, 1e9, 100), (20, 0.050, 1e9, 400), (1, 0.002, 0.05, 500), (4, 0.5, 1e9, 8), (1, 0.0004, 1e9, 2500)],
    ids=["one at a time", "twenty at a time", "sheds", "slow", "quick"],
)
def test_capacity_is_found_within_five_percent(servers: int, service: float, longest: float, capacity: float) -> None:
    found = find(measured(lambda: Line(servers, service, longest), limit=1.0), Search(start=10.0))

    assert found.per_second == pytest.approx(capacity, rel=0.05)
    assert found.high is not None
    assert found.low < found.high <= found.low * 1.05
    assert found.hold is not None
    assert found.hold.held
    assert found.recovery_seconds == 0.0


def test_it_is_the_same_each_time() -> None:
    search = Search()

    first, second = (find(measured(lambda: Line(3, 0.02), limit=0.3), search) for _ in range(2))

    assert as_json(first) == as_json(second)


def test_goodput_at_three_times_as_much_shows_a_server_that_thrashes() -> None:
    steady = find(measured(lambda: Line(1, 0.01), limit=0.3), Search())
    thrashing = find(measured(lambda: Line(1, 0.01, thrash=4.0), limit=0.3), Search())

    assert steady.spike is not None
    assert thrashing.spike is not None
    assert steady.spike.good_per_second == pytest.approx(100, rel=0.05)
    assert thrashing.spike.good_per_second < 60


def test_knee_is_where_the_median_has_doubled() -> None:
    found = find(measured(lambda: Line(1, 0.01), limit=0.5), Search())

    assert found.knee_per_second is not None
    assert 95 <= found.knee_per_second <= 160


def test_one_trial_that_noise_spoiled_does_not_decide() -> None:
    spoiled = {"left": 1}
    real = measured(lambda: Line(1, 0.01), limit=0.3)

    def measure(rate: float, seconds: float) -> Trial:
        trial = real(rate, seconds)
        if 85 < rate < 99 and spoiled["left"]:
            spoiled["left"] -= 1
            return Trial(rate, trial.good_per_second, False, True, 0.5, 0.9)
        return trial

    found = find(measure, Search())

    assert found.per_second is not None
    assert found.per_second > 80
    assert spoiled["left"] == 0


def test_latency_limit_that_no_rate_meets_is_said() -> None:
    found = find(measured(lambda: Line(1, 0.01), limit=0.005), Search())

    assert found.per_second is None
    assert lines(found) == [
        "no rate held: what is expected is more than the target can do even when it is hardly asked"
    ]


def test_slow_server_is_found_below_the_first_rate() -> None:
    found = find(measured(lambda: Line(1, 0.5), limit=2.0), Search(start=10.0, seconds=20.0))

    assert found.per_second == pytest.approx(2, rel=0.1)


def test_generator_that_ends_before_the_server_is_not_valid() -> None:
    found = find(measured(lambda: Line(100, 0.001), limit=0.3, generator=5000), Search())

    assert not found.is_valid
    assert found.per_second == 2560 * 1 or found.per_second == 5120 / 2
    assert "its own limit lies above" in " ".join(lines(found))


def test_highest_rate_ends_the_search() -> None:
    found = find(measured(lambda: Line(100, 0.001), limit=0.3), Search(highest=100))

    assert (found.per_second, found.high, found.is_valid) == (100, None, True)


def test_interrupt_keeps_what_was_found() -> None:
    trials = []

    def measure(rate: float, seconds: float) -> Trial:
        if len(trials) == 2:
            raise Interrupted
        trials.append(rate)
        return Trial(rate, rate, True)

    found = find(measure, Search())

    assert (found.per_second, found.was_interrupted) == (20, True)
    assert "interrupted" in " ".join(lines(found))


def test_capacity_of_nothing() -> None:
    assert as_json(Capacity())["per_second"] is None


@pytest.mark.parametrize(
    ("latencies", "grows"),
    [
        ([0.01, 0.02, 0.03, 0.05, 0.06, 0.07], True),
        ([0.01, 0.011, 0.010, 0.012, 0.011, 0.01], False),
        ([0.5, 0.55, 0.48, 0.52, 0.56, 0.5], False),
        ([None, 0.1], False),
        ([0.02, 0.06], True),
        ([0.05, 0.10, 0.10, 0.10, 0.10], False),  # under load it is slower, and stays so
        ([0.05, 0.10, 0.15, 0.20, 0.25], True),
        ([], False),
    ],
)
def test_line_that_grows_is_seen(latencies: list[float | None], grows: bool) -> None:
    assert is_growing(latencies) is grows
