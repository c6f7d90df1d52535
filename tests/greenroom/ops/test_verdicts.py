"""The sentence at the top names what is wrong; of several things, the one that explains the others."""

from pathlib import Path
from typing import Any

import pytest

from greenroom.insight.facts import waiting_for
from greenroom.worker.balance import State

from .fakes import NOW, moment, request, route, seen, shown, snapshot
from .troubles import stuck, verdict

BLOCK = {
    "seconds": 3.2,
    "line": "shop/views.py:41",
    "route": "/search",
    "request": "r-9",
    "stack": ["views.py:41 find"],
}
STALLING = {"total": 1, "seconds": 3.2, "current": BLOCK, "top": [], "last": []}


def test_nothing_wrong_is_healthy_with_numbers() -> None:
    found = verdict(seen(said=snapshot(routes={"/": route()})), grown={"requests": 100})

    assert found["level"] == "ok"
    assert found["sentence"] == "Healthy: 10 requests/s, 95 % of them within 96 ms."


def test_a_blocked_worker_is_named_with_line_route_and_who_waits() -> None:
    found = verdict(seen(2, snapshot(stalls=STALLING, in_flight=stuck(5, "ready")), silent=3.2))

    assert found["level"] == "bad"
    assert found["sentence"] == (
        "Worker 2 is blocked by shop/views.py:41 in /search for 3.2 s; 4 other requests and every new one wait."
    )
    assert "kills it after 30 s" in found["do"]


def test_whether_a_line_computes_is_not_said_before_it_is_known() -> None:
    def advice(silent: float, cpu: float) -> str:
        stalling = {**STALLING, "current": {**BLOCK, "seconds": silent}}
        return str(verdict(seen(2, snapshot(stalls=stalling), silent=silent, cpu=cpu))["do"])

    assert advice(1.8, 0.0).startswith("That line computes, or waits in C, without letting others run.")
    assert advice(3.2, 0.9).startswith("That line computes without letting others run.")
    assert advice(3.2, 0.0).startswith("It waits in C without letting others run")


def test_a_file_that_does_not_come_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "report.py").write_text("with open(path) as file:\n    pass\n")
    line = f"{tmp_path}/report.py:1"
    peeked = {"line": line, "stack": [f"{line} report"], "holds_gil": False}

    found = verdict(seen(2, snapshot(), silent=3.2, cpu=0.0, peeked=peeked))

    assert found["sentence"].startswith(f"Worker 2 is blocked by {line} for 3.2 s: it waits in C, without using")
    assert found["do"].startswith("A file is waited for in C: a network file system that hangs")


def test_a_worker_that_can_not_even_answer_has_its_gil_held() -> None:
    peeked = {"line": "shop/views.py:41", "stack": ["shop/views.py:41 find"], "holds_gil": True}

    found = verdict(seen(2, snapshot(), silent=9.0, unanswered=8.6, peeked=peeked))

    assert found["sentence"].startswith("Worker 2 is blocked at shop/views.py:41 for 9 s: C code holds the GIL")
    assert found["stack"] == ["shop/views.py:41 find"]


def test_what_a_mute_worker_said_before_its_block_is_not_blamed() -> None:
    """Its last answer is older than the block: the stall in it is another one."""
    found = verdict(seen(2, snapshot(stalls=STALLING), silent=9.0, unanswered=9.5))

    assert "views.py:41" not in found["sentence"]
    assert "C code holds the GIL" in found["sentence"]


def test_a_stopped_process_is_not_called_blocked() -> None:
    found = verdict(seen(1, snapshot(), silent=9.0, unanswered=9.0, is_stopped=True))

    assert "SIGSTOP" in found["sentence"]
    assert "kill -CONT 11" in found["do"]


@pytest.mark.parametrize("silent", [0.0, 0.3, 0.9])
def test_a_heartbeat_that_is_a_little_late_blames_nobody(silent: float) -> None:
    assert verdict(seen(1, snapshot(stalls=STALLING), silent=silent))["level"] == "ok"


def test_a_full_pool_is_the_bottleneck() -> None:
    pool = {"name": "orders", "kind": "database", "size": 3, "in_use": 3, "waiting": 12}

    found = verdict(seen(said=snapshot(in_flight=[*stuck(12, "pool", "orders"), *stuck(3, "query")], pools=[pool])))

    assert found["cause"] == "pool"
    assert found["sentence"] == (
        "The database pool is the bottleneck: 12 of 15 requests wait for one of its 3 connections, the longest for 2 s."
    )


def test_connections_held_across_a_call_explain_the_full_pool() -> None:
    held = {"used": "v.py:30", "upstream": "v.py:34", "host": "pay:443", "route": "/buy", "count": 5, "seconds": 9.0}
    said = snapshot(in_flight=stuck(12, "pool"), held=[{**held, "held_seconds": 10.0, "gain": 10.0}])

    found = verdict(seen(said=said))

    assert found["cause"] == "held"
    assert "because /buy (v.py:30) keeps one while it waits for pay:443." in found["sentence"]
    assert "before v.py:34. Releasing it would let 10 times as many requests through." in found["do"]


def test_few_connections_to_an_upstream_are_not_the_databases_fault() -> None:
    pool = {"name": "http://api:80", "kind": "upstream", "size": 2, "in_use": 2, "waiting": 12}

    found = verdict(seen(said=snapshot(in_flight=stuck(12, "pool"), pools=[pool])))

    assert found["cause"] == "upstream_pool"
    assert "GREENROOM_UPSTREAM_CONNECTIONS" in found["do"]


def test_a_slow_upstream_is_named_with_what_is_usual() -> None:
    said = snapshot(in_flight=stuck(8, "upstream"), upstreams={"api:443": {"waits": 100, "seconds": 20.0}})

    found = verdict(seen(said=said))

    assert found["sentence"] == (
        "Upstream api:443 is slow: 8 of 8 requests wait for it, the longest for 2 s; on average it takes 200 ms."
    )


def test_few_who_wait_or_not_for_long_are_no_verdict() -> None:
    assert verdict(seen(said=snapshot(in_flight=stuck(9, "upstream", seconds=0.2))))["level"] == "ok"
    assert verdict(seen(said=snapshot(in_flight=stuck(2, "upstream", seconds=20.0))))["level"] == "ok"


def spread(count: int, state: str, name: str, different: int, seconds: float = 25.0) -> list[dict[str, Any]]:
    return [request(state, name.format(number % different), seconds, id=f"r-{number}") for number in range(count)]


def test_many_who_wait_for_different_things_are_an_outage_as_well() -> None:
    """A database that stands still is waited for in many statements."""
    database = verdict(seen(said=snapshot(in_flight=spread(30, "query", "SELECT * FROM t{}", 5))))
    upstreams = verdict(seen(said=snapshot(in_flight=spread(30, "upstream", "api{}:443", 3))))
    threads = verdict(seen(said=snapshot(in_flight=spread(30, "lock", "thread ThreadPoolExecutor-{}_0", 30))))

    assert database["sentence"] == (
        "The database is slow: 30 of 30 requests wait for 5 different queries, the longest for 25 s."
    )
    assert upstreams["sentence"] == "Upstreams are slow: 30 of 30 requests wait for 3 hosts, the longest for 25 s."
    assert threads["sentence"] == (
        "Locks or threads are the bottleneck: 30 of 30 requests wait for 30 locks and threads, the longest for 25 s."
    )
    assert {found["level"] for found in (database, upstreams, threads)} == {"bad"}


@pytest.mark.parametrize("patient", [("sleep", ""), ("client", ""), ("lock", "queue"), ("lock", "event")])
def test_streams_that_wait_of_their_own_will_hide_nobody_and_are_no_trouble(patient: tuple[str, str]) -> None:
    streams = stuck(100, *patient, seconds=600.0)

    alone = verdict(seen(said=snapshot(in_flight=streams)))
    beside = verdict(seen(said=snapshot(in_flight=[*streams, *stuck(30, "upstream", "pay:443", 60.0)])))

    assert alone["level"] == "ok"
    assert beside["level"] == "bad"
    assert beside["sentence"] == "Upstream pay:443 answers nobody: 30 of 30 requests wait for it, the longest for 60 s."


def test_who_has_hung_for_very_long_is_worth_a_word_however_few_they_are() -> None:
    few = verdict(seen(said=snapshot(in_flight=stuck(2, "upstream", "pay:443", 600.0))))
    many = verdict(
        seen(said=snapshot(in_flight=[*stuck(9, "upstream", "pay:443", 60.0), *stuck(90, "query", "SELECT", 0.1)]))
    )
    usual = {"pay:443": {"waits": 100, "seconds": 4000.0}}
    as_ever = verdict(seen(said=snapshot(in_flight=stuck(2, "upstream", "pay:443", 60.0), upstreams=usual)))

    assert few["level"] == "watch"
    assert few["sentence"] == "Upstream pay:443 is slow: 2 of 2 requests wait for it, the longest for 10 min."
    assert many["level"] == "bad"
    assert many["sentence"] == "Upstream pay:443 is slow: 9 of 99 requests wait for it, the longest for 60 s."
    assert as_ever["level"] == "ok"


def test_those_who_wait_are_counted_beyond_the_rows_that_are_shown() -> None:
    """Of 450 requests a worker tells the 200 oldest; what all of them wait for it adds up itself."""
    said = snapshot(in_flight=stuck(200, "sleep", "", 9999.0))
    said["in_flight_states"] = {"sleep": 250, "upstream": 200}
    said["waiting"] = waiting_for([("sleep", "", 9999.0)] * 250 + [("upstream", "pay:443", 25.0)] * 200)

    assert verdict(seen(said=said))["sentence"].startswith("Upstream pay:443 answers nobody: 200 of 200 requests")


def test_most_of_the_answers_failing_is_bad_and_some_are_watched() -> None:
    routes = {"/a": route(100, status="5xx")}

    all_of_them = verdict(seen(said=snapshot(routes=routes)))
    some = verdict(seen(said=snapshot(routes={**routes, "/b": route(900)})))

    assert (all_of_them["level"], some["level"]) == ("bad", "watch")
    assert all_of_them["sentence"] == (
        "100 of 100 requests in the last 10 s fail: answered with a status of 500 or more, by no exception that was "
        "seen, most of them in /a."
    )


def test_a_deadlock_names_both() -> None:
    members = [
        {"route": f"/{side}", "request": side, "lock": f"lock {side}", "stack": [f"v.py:{line} take"]}
        for side, line in (("left", 3), ("right", 9))
    ]
    locks = {"deadlocks": [{"since_seconds": 7.0, "kind": "circle", "members": members}]}

    found = verdict(seen(said=snapshot(locks=locks)))

    assert found["sentence"] == "Deadlock in worker 1: /left and /right wait for each other's locks, for 7 s."


def test_lock_that_was_never_released_names_who_took_it_and_how_many_wait() -> None:
    member = {"route": "/need", "waits_for_route": "/leak", "taken_at": "v.py:3", "stack": ["v.py:9 need"]}
    locks = {"deadlocks": [{"since_seconds": 7.0, "kind": "orphan", "waiting": 500, "members": [member] * 5}]}

    found = verdict(seen(said=snapshot(locks=locks)))

    assert found["sentence"] == (
        "Worker 1: 500 requests wait for a lock that nobody will release, for 7 s: /leak took it at v.py:3 and ended."
    )
    assert "same order" not in found["do"]


def test_lock_that_is_taken_again_by_its_holder_says_where_it_was_taken() -> None:
    member = {"route": "/report", "waits_for_route": "/report", "taken_at": "v.py:3", "stack": ["v.py:9 __del__"]}
    locks = {"deadlocks": [{"since_seconds": 7.0, "kind": "self", "waiting": 1, "members": [member]}]}

    found = verdict(seen(said=snapshot(locks=locks)))

    assert found["sentence"] == "Deadlock in worker 1: /report waits for a lock that it holds itself, for 7 s."
    assert "It took it at v.py:3" in found["do"]


def test_overload_says_how_much_and_what_is_full() -> None:
    found = verdict(seen(said=snapshot(), cpu=0.98), grown={"requests": 950, "shed": 1200})

    assert found["sentence"] == (
        "Overload: 120 requests/s are turned away with 503, 95/s are served well; "
        "the CPU is the limit (a worker uses 98% of a core)."
    )
    assert "raise WEB_CONCURRENCY" in found["do"]


def test_overload_of_workers_that_are_busy_alike_is_no_matter_of_balance() -> None:
    both = [seen(1, said=snapshot(), cpu=0.98, in_flight=30.0), seen(2, said=snapshot("w2"), cpu=0.9, in_flight=25.0)]

    assert "; all 2 workers are busy alike, none is idle" in verdict(*both, grown={"shed": 1200})["sentence"]
    both[1] = seen(2, said=snapshot("w2"), cpu=0.3, in_flight=25.0)
    assert "alike" not in verdict(*both, grown={"shed": 1200})["sentence"]


def test_overload_by_other_programs_is_not_the_routes_fault() -> None:
    ready = snapshot(loop={"stolen_seconds": 6.0})

    found = verdict(seen(said=ready, cpu=0.13), grown={"shed": 1200}, machine_cpu_ratio=1.0)

    assert "other programs use the CPU (a worker gets 13% of a core)" in found["sentence"]
    assert found["do"] == (
        "More comes than can be served. Look at what else runs here (top), or give the server a machine of its own."
    )


def test_a_dead_worker_is_named_for_a_minute_and_until_it_is_replaced() -> None:
    def event(ago: float) -> dict[str, Any]:
        return {"at": 1.0, "since": NOW - ago, "kind": "died", "worker": 2, "pid": 99, "had": 3}

    alone = verdict(seen(1, snapshot()), events=[event(8.0)])
    replacement = seen(2, snapshot())
    replacement.first_seen_at = NOW - 7.0
    replaced = verdict(seen(1, snapshot()), replacement, events=[event(8.0)])
    later = verdict(seen(1, snapshot()), replacement, events=[event(61.0)])

    assert alone["level"] == "bad"
    assert alone["sentence"] == "Worker 2 (pid 99) died 8 s ago, with 3 requests in it; no replacement serves yet."
    assert (replaced["level"], replaced["sentence"][-23:]) == ("watch", "its replacement serves.")
    assert later["level"] == "ok"
    assert "again and again" in verdict(seen(1, snapshot()), events=[event(1.0)] * 3)["sentence"]


def test_who_died_in_a_stall_is_told_with_its_line() -> None:
    stall = {"line": "v.py:41", "route": "/search", "seconds": 22.0, "holds_gil": True}
    died = {"at": 1.0, "since": NOW - 8.0, "kind": "died", "worker": 2, "pid": 99, "had": 3, "stall": stall}

    one = verdict(seen(1, snapshot()), events=[died])
    three = verdict(seen(1, snapshot()), events=[died, died, {**died, "stall": None}])

    assert one["sentence"] == (
        "Worker 2 (pid 99) died 8 s ago, with 3 requests in it, blocked for 22 s at v.py:41 in /search; "
        "no replacement serves yet."
    )
    assert three["sentence"] == (
        "Workers die again and again: 3 in the last minute, 2 of them blocked, 2 at v.py:41 in /search."
    )


def test_nobody_who_serves_is_worse_than_anything() -> None:
    booting = seen(1, {"booting": ["shop/models.py:3 <module>"]}, state=State.BOOTING)
    booting.first_seen_at = NOW - 20.0

    assert verdict()["sentence"] == "No worker runs."
    assert verdict(booting)["sentence"] == (
        "No worker serves yet: 1 worker starting, for 20 s, now at shop/models.py:3 <module>."
    )
    assert "The server stops" in verdict(seen(1, snapshot()), is_stopping=True)["sentence"]


def test_a_blocked_worker_comes_first_and_what_it_causes_is_left_out() -> None:
    workers = (
        seen(1, snapshot(in_flight=stuck(9, "pool"))),
        seen(2, snapshot(stalls=STALLING, routes={"/a": route(90, status="5xx")}), silent=3.2),
    )

    found = verdict(*workers, grown={"shed": 500, "requests": 100, "errors": 90})

    assert found["cause"] == "blocked"
    assert [other.get("cause") for other in found["others"]] == ["errors"]


def test_stalls_that_are_over_are_still_told_for_a_minute() -> None:
    last = {"since": NOW - 20, "seconds": 2.5, "line": "v.py:7", "route": "/report", "holds_gil": True}
    stalls = {"total": 1, "seconds": 2.5, "current": None, "top": [], "last": [last, {**last, "seconds": 1.5}]}

    found = verdict(seen(said=snapshot(stalls=stalls)))

    assert found["level"] == "watch"
    assert found["sentence"] == (
        "v.py:7 (/report) blocked worker 1 for 4 s in the last minute (2 stalls, C code held the GIL)."
    )


def test_a_wall_clock_that_was_put_back_or_forward_makes_no_stall_older_or_newer() -> None:
    wrong = [{"at": 1.7e9 + off, "since": NOW - 20, "seconds": 2.5, "line": "v.py:7"} for off in (-3600, 3600)]
    stalls = {"total": 2, "seconds": 5.0, "current": None, "top": [], "last": wrong}

    page = shown(seen(said=snapshot(stalls=stalls)))

    assert [stall["ago_seconds"] for stall in page["stalls"]["last"]] == [20, 20]


def test_time_that_the_machine_took_is_not_the_lines() -> None:
    last = {"since": NOW - 20, "seconds": 2.5, "stolen_seconds": 2.3, "line": "v.py:7"}
    stalls = {"total": 1, "seconds": 2.5, "current": None, "top": [], "last": [last]}

    assert verdict(seen(said=snapshot(stalls=stalls)))["level"] == "ok"


def test_other_programs_that_take_the_cpu_are_said() -> None:
    ready, idle = snapshot(loop={"stolen_seconds": 6.0}), snapshot(loop={"stolen_seconds": 0.1})
    robbed = [seen(number, ready, cpu=0.2, lag_seconds=0.3) for number in (1, 2)]
    waiting = [seen(number, idle, cpu=0.2, lag_seconds=0.3) for number in (1, 2)]

    found = verdict(*robbed, machine_cpu_ratio=1.0)

    assert verdict(*waiting, machine_cpu_ratio=1.0)["cause"] == "healthy"
    assert found["sentence"] == ("Other programs use this machine's CPU: the workers get 0.4 of 2 cores, and are late.")


def test_every_moment_has_a_verdict_even_of_a_worker_that_says_little() -> None:
    for said in (None, {}, {"version": 1}, {"stalls": None, "in_flight": None, "worker": None, "pools": None}):
        assert verdict(seen(said=said))["sentence"]
    assert moment().workers == []


def test_a_line_that_nobody_leaves_is_an_overload_too() -> None:
    said = snapshot()
    said["worker"] = {**(said.get("worker") or {}), "queued": 59, "line_seconds": 1.18}

    found = verdict(seen(said=said, cpu=0.98), grown={"requests": 500})

    assert found["level"] == "bad"
    assert "Overload: 59 requests wait in line, for 1.2 s, 50/s are served well" in str(found["sentence"])
