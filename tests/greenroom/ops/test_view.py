"""The view is bounded, clean, and true to the numbers."""

import json
import time

import pytest

from greenroom.ops.view import MOST_IN_FLIGHT, clean, percentile

from .fakes import LE, request, route, seen, shown, snapshot


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([10, 0, 0, 0], 0.5, (0, 0.005)),
        ([0, 10, 0, 0], 0.5, (1, 0.055)),
        ([50, 49, 1, 0], 0.99, (1, 0.1)),
        ([0, 0, 0, 5], 0.5, (3, 1.0)),
        ([0, 0, 0, 0], 0.5, (None, None)),
        ([], 0.5, (None, None)),
    ],
)
def test_percentiles_come_from_buckets(buckets: list[float], share: float, expected: tuple[object, object]) -> None:
    index, value = percentile(buckets, LE, share)

    assert (index, value if value is None else pytest.approx(value)) == expected


def test_percentiles_are_split_by_where_the_time_of_requests_as_long_as_that_went() -> None:
    routes = {
        "/quick": route(98, bucket=0, state="cpu", seconds=0.005),
        "/slow": route(2, bucket=2, state="upstream", seconds=0.9),
    }

    total = shown(seen(said=snapshot(routes=routes)))["total"]

    assert total["p50_by_state"][0] == 1.0
    assert total["p99_by_state"][2] == 1.0


def test_text_from_outside_is_bounded_and_has_no_control_characters() -> None:
    hostile = "/<script>alert(1)</script>\x1b[31m\r\nSet-Cookie: x\u202e" + "x" * 10_000

    page = shown(seen(said=snapshot(routes={hostile: route()}, in_flight=[request(detail=hostile, route=hostile)])))

    for text in (page["routes"][0]["route"], page["in_flight"][0]["detail"]):
        assert len(text) == 300
        assert not set(text) & set("\x1b\r\n\u202e")


def test_numbers_are_ones_that_json_knows() -> None:
    assert json.dumps(clean({"a": float("inf"), "b": float("nan"), "c": (1.0, None)})) == (
        '{"a": null, "b": null, "c": [1.0, null]}'
    )


def test_ten_thousand_requests_in_flight_stay_a_page() -> None:
    rows = [request(id=f"r-{number}", seconds=number / 100) for number in range(10_000)]
    workers = [seen(number, snapshot(in_flight=rows[number::4])) for number in range(1, 5)]

    began = time.thread_time()
    page = shown(*workers)
    spent = time.thread_time() - began

    assert len(page["in_flight"]) == MOST_IN_FLIGHT
    assert page["in_flight"][0]["age_seconds"] == pytest.approx(100.09)
    assert sum(page["in_flight_states"].values()) >= 7500
    assert len(json.dumps(page)) < 250_000
    assert spent < 1.0


def test_requests_of_a_worker_that_does_not_answer_grow_older() -> None:
    page = shown(seen(said=snapshot(in_flight=[request(seconds=1.0)]), unanswered=30.0))

    assert page["in_flight"][0]["is_stale"]
    assert page["in_flight"][0]["age_seconds"] == pytest.approx(31.1)
    assert page["workers"][0]["is_stale"]


def test_one_pool_in_several_workers_is_one_row() -> None:
    pool = {"name": "main", "kind": "database", "size": 5, "in_use": 4, "waiting": 1}

    page = shown(*(seen(number, snapshot(pools=[pool])) for number in (1, 2, 3)))

    (row,) = page["pools"]
    assert (row["size"], row["in_use"], row["waiting"], row["workers"]) == (15, 12, 3, 3)


def test_a_pool_is_as_full_as_its_fullest_workers() -> None:
    def meter(*in_use: int, waiting: int = 0) -> tuple[float, str]:
        pools = [{"name": "main", "kind": "database", "size": 5, "in_use": used, "waiting": 0} for used in in_use]
        pools[0]["waiting"] = waiting
        page = shown(*(seen(number + 1, snapshot(pools=[pool])) for number, pool in enumerate(pools)))
        row = next(row for row in page["saturation"] if row["name"] == "Database pool")
        return row["ratio"], row["text"]

    assert meter(5, 0, waiting=21) == (1.0, "5 of 10 connections, 21 wait; worker 1: 5 of 5")
    assert meter(1, 4) == (0.8, "5 of 10 connections, 0 wait; worker 2: 4 of 5")
    assert meter(5, 5, waiting=3) == (1.0, "10 of 10 connections, 3 wait")
    assert meter(2, 2) == (0.4, "4 of 10 connections, 0 wait")


def test_what_is_said_of_blocked_workers_fits_together() -> None:
    """The heartbeat wrote 0 in flight before three requests came, of which the first holds the GIL for 15 s."""
    peeked = {"line": "shop/views.py:41", "stack": [], "holds_gil": True}
    blocked = seen(2, snapshot(), silent=15.0, unanswered=15.3, peeked=peeked, offered=3.0)

    page = shown(seen(1, snapshot()), blocked)

    meter = next(row for row in page["saturation"] if row["name"] == "Loop")
    assert (meter["ratio"], meter["text"]) == (1.0, "1 of 2 workers blocked, for 15 s")
    assert (page["total"]["workers_serving"], page["total"]["workers_blocked"]) == (2, 1)
    assert (page["total"]["in_flight"], page["total"]["in_flight_untold"]) == (3, 3)
    assert [(row["worker"], row["line"], row["seconds"]) for row in page["stalls"]["now"]] == [
        (2, "shop/views.py:41", 15.0)
    ]
    assert "2 other requests and every new one wait" in page["verdict"]["sentence"]


def test_loops_that_turn_have_a_meter_that_is_empty() -> None:
    page = shown(seen(1, snapshot(), lag_seconds=0.3, offered=9.0))

    meter = next(row for row in page["saturation"] if row["name"] == "Loop")
    assert (meter["ratio"], meter["text"]) == (0.3, "turns 300 ms late")
    assert (page["stalls"]["now"], page["total"]["in_flight"], page["total"]["workers_blocked"]) == ([], 0, 0)


def test_hundreds_in_flight_are_a_few_groups_by_route_and_wait() -> None:
    rows = [request("upstream", "api:443", float(number), id=f"r{number}") for number in range(150)]
    said = snapshot(in_flight=[*rows, request("query", "SELECT ?", 3.0, route="/b")])
    for row in said["waiting"]:
        row["lines"] = [{"line": "a.py:3", "route": "/orders/<id>", "library": "requests", "count": 150}]

    groups = shown(seen(said=said))["in_flight_groups"]

    assert [(one["route"], one["state"], one["count"]) for one in groups] == [
        ("/orders/<id>", "upstream", 150),
        ("/b", "query", 1),
    ]
    assert groups[0]["line"] == "a.py:3"
    assert groups[0]["oldest_seconds"] == 149.1
