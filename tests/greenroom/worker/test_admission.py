"""Admission on simulated time: nobody who would be served is turned away, and too many leave good answers."""

import logging
import random
from typing import Any

import pytest

from greenroom.worker.admission import LEFT_SECONDS, Admission
from greenroom.worker.gates import OpenGate, StaticGate

from ..conftest import ManualClock
from .simulated import CAPACITY, HEAD_SECONDS, Request, Shape, Steps, World, closed, percentile, poisson


@pytest.fixture
def world(clock: ManualClock) -> World:
    return World(clock)


def computes(chance: random.Random) -> Steps:
    return [("compute", 0.01)]


def computes_first(chance: random.Random) -> Steps:
    return [("compute", 0.01), ("wait", 0.05)]


def waits_first(chance: random.Random) -> Steps:
    return [("wait", 0.05), ("compute", 0.01)]


def in_parts(chance: random.Random) -> Steps:
    return [("compute", 0.005), ("wait", 0.025), ("compute", 0.005), ("wait", 0.025)]


def unequal(chance: random.Random) -> Steps:
    return [("compute", 0.1 if chance.random() < 0.05 else 0.0053)]


SHAPES = (computes, computes_first, waits_first, in_parts, unequal)


@pytest.mark.parametrize("level", [1.02, 1.1, 1.5, 3.0, 10.0])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
@pytest.mark.parametrize("is_seen", [True, False], ids=["clients close", "nobody sees them leave"])
def test_clients_of_a_second_of_patience_leave_good_answers_quick_and_near_the_peak(
    shape: Shape, level: float, is_seen: bool, world: World
) -> None:
    phases = [(0.5 * CAPACITY, 3), (level * CAPACITY, 8), (0.5 * CAPACITY, 2)]
    loop = world.loop().offer(poisson(phases, shape, patience=1.0, is_seen=is_seen))

    loop.run(until=16)

    under_load = [one for one in loop.outcomes if 3 <= one.due < 11]
    good = [one.seconds for one in under_load if one.is_good]
    assert len(good) / 8 >= 0.9 * CAPACITY
    assert percentile(good, 99 if is_seen else 90) < 0.7


@pytest.mark.parametrize("level", [1.02, 1.1, 1.5, 3.0, 10.0])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_clients_of_more_patience_than_expected_lose_nothing(shape: Shape, level: float, world: World) -> None:
    loop = world.loop().offer(poisson([(0.5 * CAPACITY, 3), (level * CAPACITY, 8)], shape, patience=5.0))

    loop.run(until=25)

    assert sum(one.is_good for one in loop.outcomes if 3 <= one.due < 11) / 8 >= 0.95 * CAPACITY


def test_all_is_well_a_second_after_the_overload(world: World) -> None:
    loop = world.loop().offer(
        poisson([(0.5 * CAPACITY, 2), (10 * CAPACITY, 5), (0.5 * CAPACITY, 4)], computes_first, patience=1.0)
    )

    loop.run(until=20)

    after = [one for one in loop.outcomes if one.due > 8]
    assert len(after) > 100
    assert all(one.is_good and one.seconds < 0.3 for one in after)


@pytest.mark.parametrize("clients", [6, 50, 200])
@pytest.mark.parametrize("cpu_seconds", [0.002, 0.01, 0.03])
@pytest.mark.parametrize("wait_seconds", [0.0, 0.02])
@pytest.mark.parametrize("ramp_seconds", [0.0, 5.0])
def test_clients_who_wait_for_their_answers_are_never_turned_away_and_keep_the_core_busy(
    clients: int, cpu_seconds: float, wait_seconds: float, ramp_seconds: float, world: World
) -> None:
    def shape(chance: random.Random) -> Steps:
        if not wait_seconds:
            return [("compute", cpu_seconds)]
        return [("compute", cpu_seconds / 2), ("wait", wait_seconds), ("compute", cpu_seconds / 2)]

    loop = closed(world.loop(), clients, shape, ramp_seconds=ramp_seconds)

    loop.run(until=20)

    answered = [one for one in loop.outcomes if one.due > ramp_seconds + 3]
    assert loop.admission.shed_requests == 0
    in_turn = max(clients * (cpu_seconds + HEAD_SECONDS), wait_seconds)
    possible = min(1 / (cpu_seconds + HEAD_SECONDS), clients / (cpu_seconds + wait_seconds))
    late = [one for one in loop.outcomes if one.due + one.seconds > 10]
    assert len(late) / 10 >= 0.97 * possible
    assert max(one.seconds for one in answered) < 1.5 * in_turn + 0.7, "each in its turn"


@pytest.mark.parametrize("core_ratio", [1.0, 0.4])
def test_dozens_of_clients_with_unequal_requests_are_never_turned_away(core_ratio: float, world: World) -> None:
    loop = world.loop()
    loop.core_ratio = core_ratio
    closed(loop, 40, lambda chance: [("compute", 0.07 if chance.random() < 0.1 else 0.003)], think_seconds=0.3)

    loop.run(until=20)

    assert {one.what for one in loop.outcomes} == {"answered"}
    assert max(one.seconds for one in loop.outcomes) < 2.0 / core_ratio


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_below_the_capacity_nobody_is_turned_away_and_nobody_leaves(shape: Shape, world: World) -> None:
    loop = world.loop().offer(poisson([(0.7 * CAPACITY, 20)], shape, patience=1.0))

    loop.run(until=30)

    assert {one.what for one in loop.outcomes} == {"answered"}


def test_a_core_shared_with_a_neighbour_still_answers_in_time(world: World) -> None:
    loop = world.loop()
    loop.core_ratio = 0.4
    loop.offer(poisson([(0.9 * CAPACITY, 15), (0.1 * CAPACITY, 2)], computes_first, patience=1.0)).run(until=20)

    good = [one.seconds for one in loop.outcomes if one.is_good and 1 < one.due < 15]
    assert len(good) / 14 >= 0.9 * 0.4 * CAPACITY
    assert percentile(good, 99) < 0.7


def test_the_loop_does_not_idle_while_somebody_waits(world: World) -> None:
    loop = world.loop()
    closed(loop, 50, in_parts).run(until=10)

    assert loop.idle_seconds_with_a_line < 0.02 * 10


def test_a_thousand_clients_of_a_slow_upstream_are_all_admitted(world: World) -> None:
    loop = world.loop()
    steps = lambda chance: [("compute", 0.00015), ("wait", 0.1), ("compute", 0.00005)]  # noqa: E731
    closed(loop, 1000, steps, think_seconds=0.25).run(until=5)

    assert {one.what for one in loop.outcomes} == {"answered"}
    assert len(loop.outcomes) > 2500 * 4.5
    assert loop.most_running > 250


def test_hundreds_at_the_same_moment_are_all_admitted(world: World) -> None:
    loop = world.loop()
    loop.offer([Request(0.0, [("compute", 0.00015), ("wait", 0.1), ("compute", 0.00005)]) for _ in range(600)])

    loop.run(until=5)

    assert all(one.seconds < 1.0 for one in loop.outcomes)
    assert loop.most_running > 300


def test_a_burst_is_served_in_order_when_it_can_be_within_patience(world: World) -> None:
    loop = world.loop()
    loop.offer(poisson([(50, 5)], computes)).run(until=6)
    loop.outcomes.clear()
    loop.offer([Request(6.0 + number * 1e-4, computes(random.Random())) for number in range(40)])

    loop.run(until=10)

    assert [one.due for one in loop.outcomes] == sorted(one.due for one in loop.outcomes)
    assert len(loop.outcomes) == 40


def test_a_stall_is_nobodys_overload(world: World) -> None:
    loop = world.loop().offer(poisson([(200, 3)], lambda chance: [("compute", 0.0005), ("wait", 0.02)]))
    loop.offer([Request(1.0, [("compute", 2.0)])])  # somebody blocks the loop

    loop.run(until=6)

    assert {one.what for one in loop.outcomes} == {"answered"}


def test_one_slow_first_request_makes_nobody_wait_for_long(world: World) -> None:
    loop = world.loop().offer([Request(0.0, [("compute", 10.0)])])
    loop.offer([Request(11.0, [("compute", 0.0005), ("wait", 0.05)]) for _ in range(300)])

    loop.run(until=20)

    assert {one.what for one in loop.outcomes} == {"answered"}
    assert max(one.seconds for one in loop.outcomes if one.due == 11.0) < 0.5


def test_health_checks_and_named_paths_wait_for_nobody(world: World) -> None:
    loop = world.loop(priority_paths=("/pay/", "/admin"), queue_limit_requests=0)
    loop.offer(poisson([(10 * CAPACITY, 3)], computes_first, patience=1.0))
    ahead, others = ["/healthz", "/readyz", "/pay", "/pay/7", "/admin/users"], ["/payments", "/healthzz"]
    probes = [Request(1 + number * 0.05, [("compute", 1e-4)], path) for number in range(30) for path in ahead + others]
    loop.offer(probes)

    loop.run(until=6)

    by_path: dict[str, list[float]] = {path: [] for path in ahead + others}
    for probe in probes:
        by_path[probe.path].append(probe.dead)
    assert all(all(by_path[path]) for path in ahead)
    assert not any(all(by_path[path]) for path in others)


def test_a_client_that_leaves_the_line_costs_no_work(world: World) -> None:
    loop = world.loop(gate=StaticGate(1))
    loop.offer([Request(0.0, [("wait", 5.0)]), Request(0.1, [("wait", 0.01)], patience=1.0)])

    loop.run(until=6)

    assert [(one.due, one.what) for one in loop.outcomes] == [(0.1, "left"), (0.0, "answered")]
    assert (loop.admission.left_requests, loop.admission.waiting) == (1, 0)


def test_a_budget_that_ends_in_line_is_answered_at_that_time(world: World) -> None:
    loop = world.loop(gate=StaticGate(1))
    loop.offer([Request(0.0, [("wait", 5.0)]), *(Request(0.1, [("wait", 0.01)], budget=2.0) for _ in range(3))])

    loop.run(until=6)

    spent = [one for one in loop.outcomes if one.what == "spent"]
    assert [one.seconds for one in spent] == pytest.approx([2.0] * 3, abs=0.15)
    assert loop.admission.spent_requests == 3


def test_a_static_limit_counts_requests_in_flight(world: World) -> None:
    loop = world.loop(gate=StaticGate(8)).offer(poisson([(3 * CAPACITY, 5)], computes_first, patience=1.0))

    loop.run(until=10)

    assert loop.most_running == 8
    assert loop.admission.gate.load == 0
    assert sum(one.is_good for one in loop.outcomes) / 5 >= 0.85 * CAPACITY


def test_admission_that_is_off_lets_everybody_run(world: World) -> None:
    loop = world.loop(gate=OpenGate()).offer([Request(0.0, [("compute", 0.01), ("wait", 1.0)]) for _ in range(50)])

    loop.run(until=5)

    assert loop.most_running == 50
    assert loop.admission.queued_requests == 0


def test_who_was_overtaken_for_longest_is_turned_away_when_the_line_is_full(world: World) -> None:
    loop = world.loop(gate=StaticGate(1), queue_limit_requests=3)
    loop.offer([Request(number * 0.01, [("wait", 1.0)]) for number in range(6)])

    loop.run(until=10)

    assert [one.due for one in loop.outcomes if one.what == "shed"] == [0.01, 0.02]
    assert loop.admission.shed_requests == 2


def test_no_line_at_all_turns_the_newcomer_away(world: World) -> None:
    loop = world.loop(gate=StaticGate(1), queue_limit_requests=0)
    loop.offer([Request(number * 0.01, [("wait", 1.0)]) for number in range(3)])

    loop.run(until=10)

    assert [one.what for one in loop.outcomes] == ["shed", "shed", "answered"]


def test_a_worker_that_stops_answers_all_in_line(world: World) -> None:
    loop = world.loop(gate=StaticGate(1)).offer([Request(0.0, [("wait", 1.0)]) for _ in range(5)])
    loop.run(until=0.1)

    loop.admission.turn_away_all()

    assert [one.what for one in loop.outcomes] == ["shed"] * 4
    assert loop.admission.waiting == 0


def test_who_was_passed_over_comes_first_when_the_line_has_stopped_growing(clock: ManualClock) -> None:
    order: list[str] = []
    gate = StaticGate(1)
    admission = Admission(
        gate,
        lambda connection, request: order.append(connection),
        lambda connection, request, is_spent: order.append("shed"),
        patience_seconds=1.0,
        queue_limit_requests=1000,
        now=clock.now,
    )
    request: Any = Request(0.0, [])
    for number in range(10):  # which tells the pace: 0.2 s, so two are a short line
        admission.wait(f"early {number}", request)
        clock.advance(0.2)
        admission.release()
    order.clear()
    for name in "abcd":
        admission.wait(name, request)
    first_while_it_grows = next(iter(admission.line))
    clock.advance(LEFT_SECONDS)

    admission.release()

    assert first_while_it_grows == "c"
    assert order == ["a", "b", "c", "d"]


def test_those_who_were_lost_are_one_line_of_the_log_per_interval(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    logger = logging.Logger("one test's own")
    monkeypatch.setattr(logger, "warning", lambda message, *values: said.append(message % values))
    monkeypatch.setattr("greenroom.worker.admission.logger", logger)
    loop = world.loop(gate=StaticGate(1), queue_limit_requests=1, patience_seconds=0.01)
    lines = []
    for second in range(12):
        loop.offer([Request(float(second), [("wait", 0.01)]) for _ in range(5)])
        loop.run(until=second + 1)
        loop.clock.seconds = second + 1
        loop.admission.report()
        lines.append(len(said))

    assert lines == [1] * 10 + [2] * 2
    assert said[0].startswith("overload: 3 requests turned away with 503, 3 since the start; 0 clients left")
    assert said[1].startswith("overload: 30 requests turned away with 503, 33 since the start")


def test_finished_requests_leave_nothing_in_the_account(world: World) -> None:
    loop = world.loop().offer(poisson([(3 * CAPACITY, 3)], in_parts, patience=1.0))
    loop.run(until=10)

    loop.admission.gate.turn(0.0, 0.0)

    assert loop.admission.gate.load == pytest.approx(0.0, abs=0.05)
    assert loop.admission.gate.cost == pytest.approx(0.01, rel=0.1)
