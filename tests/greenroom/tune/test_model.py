"""greenroom/tune: from costs and bounds to settings, and what is said about them."""

import pytest

from greenroom.load.units import LoadError
from greenroom.tune import telling
from greenroom.tune.calibration import STATES, costs_of, pool_size
from greenroom.tune.model import (
    BUDGET,
    LIMIT,
    LINE,
    PATIENCE,
    POOL,
    UPSTREAMS,
    WORKERS,
    Bounds,
    Costs,
    in_parallel,
    propose,
)
from greenroom.tune.telling import Measured

NOW = {WORKERS: "1", LIMIT: "0", UPSTREAMS: "0", PATIENCE: "1000", LINE: "1000", BUDGET: "60000", POOL: "5"}
CPU_BOUND = Costs(cpu=0.010, latency=0.012, memory_bytes=100 * 2**20)
DATABASE_BOUND = Costs(cpu=0.002, latency=0.060, database=0.050, memory_bytes=100 * 2**20)


def test_states_are_those_of_insight() -> None:
    from greenroom.insight import account

    assert STATES == tuple(account.STATES)


def test_work_that_the_cpu_bounds_gets_a_worker_for_each_core() -> None:
    proposal = propose(CPU_BOUND, Bounds(cores=4), NOW, limit_seconds=0.3)

    assert proposal.bound == "cpu"
    assert proposal.expected_per_second == pytest.approx(400)
    assert proposal.values()[WORKERS] == "4"
    assert proposal.values()[LIMIT] == "0"
    assert proposal.values()[PATIENCE] == "300"
    assert proposal.values()[LINE] == "30"
    assert proposal.values()[BUDGET] == "3000"
    assert [one[WORKERS] for one in proposal.alternatives] == ["3", "5"]


def test_memory_takes_workers_away() -> None:
    proposal = propose(CPU_BOUND, Bounds(cores=8, memory_bytes=350 * 2**20), NOW, limit_seconds=None)

    assert (proposal.values()[WORKERS], proposal.bound) == ("3", "memory")


def test_work_that_the_database_bounds_shares_its_connections() -> None:
    proposal = propose(DATABASE_BOUND, Bounds(cores=2, max_connections=23), NOW, limit_seconds=0.3)

    # Twenty connections, ten for each worker, each answers twenty a second.
    assert proposal.bound == "database"
    assert proposal.values()[POOL] == "10"
    assert proposal.expected_per_second == pytest.approx(400)
    assert int(proposal.values()[LIMIT]) == in_parallel(200, 0.060) == 19
    assert [set(one) for one in proposal.alternatives] == [{LIMIT}, {LIMIT}]


def test_pool_is_as_large_as_its_requests_need_where_the_database_allows_more() -> None:
    proposal = propose(DATABASE_BOUND, Bounds(cores=1, max_connections=1000), NOW, limit_seconds=None)

    assert proposal.bound == "cpu"
    assert proposal.values()[POOL] == str(in_parallel(500, 0.050)) == "35"


def test_hosts_share_the_database() -> None:
    bounds = Bounds(cores=1, max_connections=103, hosts=4)

    assert bounds.database_connections == 25


def test_too_few_connections_to_an_upstream_are_raised_and_never_set_without_need() -> None:
    costs = Costs(cpu=0.002, latency=0.2, upstream=0.190)

    raised = propose(costs, Bounds(cores=1), {**NOW, UPSTREAMS: "10"}, None)
    left = propose(costs, Bounds(cores=1), NOW, None)

    assert raised.values()[UPSTREAMS] == str(in_parallel(500, 0.190))
    assert UPSTREAMS not in left.values()


def test_in_parallel_leaves_room_for_chance() -> None:
    assert [in_parallel(100, seconds) for seconds in (0.0, 0.01, 0.16, 1.0)] == [1, 3, 24, 120]


def test_costs_come_from_what_insight_counted() -> None:
    row = {"rate": 10.0, "count": 50, "seconds": [0.004, 0.0, 0.1, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]}
    view = {
        "routes": [row, {"rate": 0.0, "count": 3, "seconds": [1.0] * 11}],
        "workers": [{"rss_bytes": 5}, {"rss_bytes": 7}],
        "held": [],
        "stalls": {"top": [{"line": "shop.py:12"}]},
        "pools": [{"kind": "upstream", "size": 3}, {"kind": "database", "size": 20, "workers": 2}],
    }

    assert costs_of(view, 0.13) == Costs(0.004, 0.13, 0.02, 0.1, 7, "shop.py:12")
    view["workers"] = [{"rss_bytes": 7, "cpu_ratio": 0.03}]
    assert costs_of(view, 0.13).cpu == pytest.approx(0.003)
    assert pool_size(view) == 10


def test_nothing_counted_is_said() -> None:
    with pytest.raises(LoadError, match="has counted no request"):
        costs_of({"routes": []}, 0.1)


def test_what_gains_less_than_a_tenth_is_not_worth_changing() -> None:
    before = Measured("as it is", {}, 100.0)
    costs = Costs(0.01, 0.01, line="shop.py:12 (search)")

    words, best = telling.verdict(before, [Measured("as proposed", {LIMIT: "5"}, 105.0)], costs, "cpu")

    assert best is before
    assert words.startswith("Nothing is worth changing: 100/s as it is, 105/s at best otherwise.")
    assert words.endswith("make it cheaper, first of all shop.py:12 (search).")


def test_best_of_what_was_tried_is_taken() -> None:
    before = Measured("as it is", {}, 100.0)
    tried = [Measured("as proposed", {LIMIT: "5"}, 150.0), Measured("with LIMIT=7", {LIMIT: "7"}, 180.0)]

    words, best = telling.verdict(before, tried, CPU_BOUND, "database")

    assert best is tried[1]
    assert words == "with LIMIT=7: 180/s instead of 100/s, 1.80 times as much."


def test_lines_to_set_are_those_that_change() -> None:
    proposal = propose(DATABASE_BOUND, Bounds(cores=2, max_connections=23), NOW, limit_seconds=1.0)

    lines = telling.env_lines(proposal.settings)

    assert lines[:3] == [
        "WEB_CONCURRENCY=2",
        "# the database pool, where your application makes its engine: pool_size=10",
        "GREENROOM_LIMIT_REQUESTS=19",
    ]
    assert not any(line.startswith(PATIENCE) for line in lines)  # it is as it should be
    assert telling.gunicorn_lines(proposal.settings) == ["workers = 2"]
    assert telling.table(proposal)[0].split() == ["setting", "now", "proposed", "reason"]
