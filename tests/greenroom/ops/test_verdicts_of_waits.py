"""Verdicts on what is waited for: locks, pools, queries, upstreams, children; each with its holder and its line."""

from typing import Any

from greenroom.ops.usual import Usual

from .fakes import STATES, request, route, seen, snapshot
from .troubles import causes, database, stuck, verdict, with_lines


def test_what_a_peer_is_follows_from_its_library_or_port() -> None:
    lines = {"10.0.0.9:7000": [{"line": "a.py:1", "route": "/", "library": "redis", "count": 3}]}
    dead = snapshot(upstreams={"10.0.0.9:7000": {"waits": 0, "seconds": 0.0, "refused": 5}}, bad_callers=lines)
    hangs = with_lines(snapshot(in_flight=stuck(5, "upstream", "mail:25", 9.0)), "a.py:2", "/signup", "smtplib")

    assert verdict(seen(said=dead))["sentence"].startswith("Redis at 10.0.0.9:7000 refuses connections: 5 failed")
    assert verdict(seen(said=hangs))["sentence"] == (
        "The mail server at mail:25 answers nobody: 5 of 5 requests wait for it (/signup), the longest for 9 s."
    )


def test_connections_that_are_not_given_back_are_told_from_a_small_pool() -> None:
    holder = {"request": "r", "route": "/export", "seconds": 90.0, "line": "a.py:4", "is_over": True}
    pool = {"name": "db", "kind": "database", "size": 3, "in_use": 3, "waiting": 9, "holders": [holder]}

    found = verdict(seen(said=snapshot(in_flight=stuck(9, "pool", "db", 5.0), pools=[pool])))

    assert causes(found) == ["pool_leak"]
    assert "a.py:4 (/export) took one 90 s ago, and its request is over" in found["sentence"]
    assert "would only be used up later" in found["do"]


def test_a_statement_that_writes_most_likely_waits_for_a_row() -> None:
    said = snapshot(in_flight=stuck(9, "query", "UPDATE t SET n = ?", 5.0), databases=database())

    found = verdict(seen(said=said))

    assert found["cause"] == "query"
    assert "most likely for locks of rows: 9 of 9 requests wait" in found["sentence"]
    assert "pg_blocking_pids" in found["do"]


def test_a_lock_without_a_known_holder_is_named_by_its_line() -> None:
    said = with_lines(snapshot(in_flight=stuck(9, "lock", "lock", 4.0)), "a.py:5", "/all")

    assert "wait for it, the longest for 4 s, at a.py:5 (/all)." in verdict(seen(said=said))["sentence"]


def test_a_lock_is_named_with_its_holder_and_what_that_waits_for() -> None:
    holder = {
        **{"taken_at": "a.py:9", "wanted_at": "a.py:9", "route": "/rates", "request": "r", "state": "upstream"},
        **{"detail": "api:443", "line": "a.py:10", "library": "requests", "count": 9, "longest_seconds": 4.0},
    }

    found = verdict(seen(said=snapshot(in_flight=stuck(9, "lock", "lock", 4.0), holders=[holder])))

    assert causes(found) == ["lock_held"]
    assert found["sentence"] == (
        "The lock at a.py:9 is the bottleneck: 9 of 9 requests wait for it, the longest for 4 s; it was taken at "
        "a.py:9 of /rates, and its holder waits for upstream api:443 at a.py:10."
    )


def test_a_lock_that_a_module_has_is_told_by_its_name() -> None:
    holder = {"name": "PRICES of a.py", "taken_at": "a.py:9", "wanted_at": "a.py:9", "route": "/rates", "line": ""}
    holder |= {"state": "", "detail": "", "library": "", "count": 9, "longest_seconds": 4.0}

    found = verdict(seen(said=snapshot(in_flight=stuck(9, "lock", "lock", 4.0), holders=[holder])))

    assert found["sentence"] == (
        "The lock at a.py:9 is the bottleneck: 9 of 9 requests wait for it, the longest for 4 s; PRICES of a.py was "
        "taken at a.py:9 of /rates."
    )


def test_an_executor_with_too_few_threads_is_named() -> None:
    row = {"name": "prices", "size": 4, "queued": 26, "at_work": 4, "state": "upstream", "detail": "api:443"}
    said = with_lines(snapshot(in_flight=stuck(30, "lock", "lock", 3.0)), "a.py:5", "/all")
    said["executors"] = [{**row, "line": "a.py:7", "route": "/all"}]

    found = verdict(seen(said=said))

    assert causes(found) == ["executor"]
    assert found["sentence"] == (
        "An executor of 4 threads (prices) is the bottleneck: 26 calls queue for it, asked for at a.py:5 (/all); its "
        "threads wait for api:443 at a.py:7."
    )


def test_a_lock_and_an_executor_are_named_as_soon_as_the_wait_for_them_is_slow() -> None:
    """Else the page says at first that a lock is the bottleneck, without a name, and then another thing."""
    holder = {"name": "", "taken_at": "a.py:9", "wanted_at": "a.py:9", "route": "/rates", "line": "", "state": ""}
    holder |= {"detail": "", "library": "", "count": 9, "longest_seconds": 0.7}
    row = {"name": "prices", "size": 4, "queued": 26, "at_work": 4, "state": "", "detail": "", "line": ""}
    short = snapshot(in_flight=stuck(9, "lock", "lock", 0.2), holders=[{**holder, "longest_seconds": 0.2}])
    short["executors"] = [row]

    locked = verdict(seen(said=snapshot(in_flight=stuck(9, "lock", "lock", 0.7), holders=[holder])))
    queued = snapshot(in_flight=stuck(30, "lock", "lock", 0.7))
    queued["executors"] = [row]

    assert causes(locked) == ["lock_held"]
    assert causes(verdict(seen(said=queued))) == ["executor"]
    assert "lock_held" not in causes(verdict(seen(said=short)))
    assert "executor" not in causes(verdict(seen(said=short)))


def test_sqlites_writer_lock_is_named_with_who_writes() -> None:
    waits = [
        *stuck(2, "lock", "sqlite shop.db", 3.0),
        *stuck(2, "lock", "sqlite shop.db, in a transaction since a.py:7 (GET /visit)", 2.0),
    ]

    found = verdict(seen(said=with_lines(snapshot(in_flight=waits), "a.py:6", "/visit")))

    assert causes(found) == ["sqlite_locked"]
    assert found["sentence"] == (
        "SQLite's writer lock of shop.db is the bottleneck: 4 requests wait for it at a.py:6 (/visit), the longest for "
        "3 s; a transaction is open since a.py:7 (GET /visit)."
    )


def test_many_queries_of_one_line_are_told_with_the_statement() -> None:
    row = {"line": "a.py:17", "route": "/list", "statement": "SELECT ? FROM items", "requests": 10, "count": 4000}
    said = snapshot(
        routes={"/list": route(10)},
        repeated=[{**row, "most": 400, "seconds": 3.0}],
        queries={"/list": {"requests": 10, "queries": 4010}},
    )

    found = verdict(seen(said=said))

    assert found["sentence"] == (
        "Each request of /list asks the database 401 times: 400 of them at a.py:17 (SELECT ? FROM items)."
    )


def test_a_route_is_compared_with_its_own_last_hour() -> None:
    usual = Usual()
    for step in range(20):
        count = 10 * step
        by_state = [count * 0.05 if name == "cpu" else 0.0 for name in STATES]
        usual.look(10.0 * step, {"/a": {"count": count, "total_seconds": count * 0.05, "seconds": by_state}})

    found = verdict(seen(said=snapshot(routes={"/a": route(10, bucket=2, state="query", seconds=0.5)})), usual=usual)
    as_ever = verdict(seen(said=snapshot(routes={"/a": route(10, seconds=0.06)})), usual=usual)

    assert found["cause"] == "slower_than_usual"
    assert "/a takes 500 ms, 10.0 times as long as usual (50 ms, of 1" in found["sentence"]
    assert "the time goes to the database" in found["sentence"]
    assert as_ever["cause"] == "healthy"


def test_children_that_are_waited_for_are_named() -> None:
    rows = stuck(9, "other", "subprocess", 3.0, route="/pdf")
    said = with_lines(snapshot(in_flight=rows), "shop/pdf.py:7", "/pdf")

    found = verdict(seen(said=said))

    assert found["cause"] == "other"
    assert found["sentence"].startswith("Requests wait for child processes: 9 of 9 requests")
    assert "shop/pdf.py:7 (/pdf)" in found["sentence"]
    assert "timeout=" in found["do"]


def test_the_lock_of_a_file_is_named_as_that() -> None:
    rows = stuck(7, "lock", "flock", 2.0, route="/report")
    said = with_lines(snapshot(in_flight=rows), "shop/report.py:5", "/report")

    found = verdict(seen(said=said))

    assert found["sentence"] == (
        "A file's lock (flock) is the bottleneck: 7 of 7 requests wait for it, the longest for 2 s, at "
        "shop/report.py:5 (/report)."
    )


def test_answers_that_take_very_long_are_not_healthy() -> None:
    slow = route(20, bucket=2, state="upstream", seconds=11.0)
    said = {**snapshot(routes={"/report": slow, "/ok": route(100)}), "le": [0.01, 10.0, 30.0, None]}

    found = verdict(seen(said=said))

    assert found["cause"] == "takes_long"
    assert found["sentence"] == "Requests of /report take longer than 10 s; the time goes to an upstream."


def test_a_body_that_comes_in_drips_names_its_upstream_and_line() -> None:
    rows = stuck(2, "upstream", "slow:80", 0.1, route="/report")
    said = with_lines(snapshot(in_flight=rows), "shop/report.py:5", "/report")
    said["routes"] = {"/report": route(20, bucket=2, state="upstream", seconds=11.0)}
    said["le"] = [0.01, 10.0, 30.0, None]

    found = verdict(seen(said=said))

    assert found["sentence"].endswith("take longer than 10 s; the time goes to upstream slow:80.")
    assert "Called at shop/report.py:5." in found["do"]


def test_the_only_upstream_that_is_waited_for_is_named_without_a_line_as_well() -> None:
    said = snapshot(in_flight=stuck(2, "upstream", "slow:80", 0.1, route="/report"))
    said["routes"] = {"/report": route(20, bucket=2, state="upstream", seconds=11.0)}
    said["le"] = [0.01, 10.0, 30.0, None]

    assert "the time goes to upstream slow:80." in verdict(seen(said=said))["sentence"]


def semaphore(seconds: float, places: int = 3) -> dict[str, Any]:
    row = {"kind": "semaphore", "name": "SLOTS of shop.py:20", "places": places, "wanted_at": "shop.py:122"}
    row["route"] = "/slots"
    waiting = stuck(6, "lock", "semaphore", seconds, route="/slots")
    return snapshot(in_flight=waiting, holders=[{**row, "count": 6, "longest_seconds": seconds}])


def test_a_semaphore_is_named_and_whether_its_places_come_back() -> None:
    busy, leaking = (verdict(seen(said=semaphore(seconds))) for seconds in (2.0, 18.0))

    assert causes(busy) == causes(leaking) == ["semaphore"]
    assert busy["sentence"] == (
        "The semaphore at shop.py:122 (/slots) is the bottleneck: 6 of 6 requests wait for one of its 3 places, the "
        "longest for 2 s; it is SLOTS of shop.py:20."
    )
    held = semaphore(2.0)
    held["in_flight"] = [*held["in_flight"], request("upstream", "api:443", 1.0, id="h", route="/slots")]
    assert "for 2 s; others of /slots wait for upstream api:443; it is" in verdict(seen(said=held))["sentence"]
    assert "in 18 s none was given back" in leaking["sentence"]
    assert "release()" in leaking["do"]
    assert "release()" not in busy["do"]
    assert "for a place," in verdict(seen(said=semaphore(2.0, places=0)))["sentence"]


def test_a_quick_query_that_hangs_waits_for_a_lock() -> None:
    usual = Usual()
    for step in range(6):
        usual.look(step * 10.0, {"/items": {**route(50 * step, seconds=0.004, state="query")}})
    waiting = with_lines(
        snapshot(in_flight=stuck(8, "query", "SELECT count(*) FROM items", 9.0), routes={"/items": route(0)}),
        "shop.py:32",
        "/items",
    )
    unheard = verdict(seen(said=waiting), usual=usual)
    assert unheard["sentence"].startswith("The database does not answer what is quick otherwise: 8 of 8 requests wait")
    assert "stands still" in unheard["do"]

    found = verdict(seen(said={**waiting, "databases": database(heard_seconds=0.3)}), usual=usual)
    assert found["cause"] == "query"
    assert found["sentence"].startswith("Requests wait in the database, most likely for a lock: 8 of 8 requests wait")
    assert "on average it takes 4 ms (SELECT count(*) FROM items)" in found["sentence"]
    assert "pg_blocking_pids(pid)" in found["do"]
    assert found["do"].endswith("Waited for at shop.py:32 (/items).")
    assert verdict(seen(said=waiting))["sentence"].startswith("The database is slow"), "nothing is known of before"


def test_connections_that_a_firewall_has_forgotten_are_no_silent_database() -> None:
    waiting = stuck(3, "query", "BEGIN", 4.6) + stuck(2, "query", "SELECT count(*) FROM items", 0.01)
    said = with_lines(snapshot(in_flight=waiting, databases=database(heard_seconds=0.1)), "shop.py:32", "/items")

    found = verdict(seen(said=said))
    assert causes(found) == ["database_connections"]
    assert found["sentence"] == (
        "Connections to PostgreSQL at db:5432 get no answer while it answers on others: 3 requests wait (/items), the "
        "longest for 4.6 s for a plain BEGIN."
    )
    assert "firewall" in found["do"]
    assert "SHOW POOLS" in found["do"]

    silent = verdict(seen(said={**said, "databases": database(heard_seconds=4.6)}))
    assert causes(silent) == ["database_silent"]


def test_a_connection_that_is_kept_across_a_call_is_told_of_any_driver() -> None:
    holder = {"request": "keeper", "route": "/sell", "seconds": 2.0, "line": "a.py:4", "is_over": False}
    pool = {"name": "db", "kind": "database", "size": 3, "in_use": 3, "waiting": 9, "holders": [holder]}
    keeper = request("upstream", "api:443", 1.9, id="keeper", route="/sell")
    said = snapshot(in_flight=[*stuck(9, "pool", "db", 2.0), keeper], pools=[pool])
    said["waiting"] = [
        {**row, "lines": [{"line": "a.py:5", "route": "/sell", "library": "requests", "count": 1}]}
        for row in said["waiting"]
    ]
    found = verdict(seen(said=said))

    assert causes(found) == ["held"]
    assert found["sentence"].endswith(
        "of its 3 connections, because a.py:4 (/sell) keeps one while it waits for api:443."
    )
    assert "before that call at a.py:5 (/sell)" in found["do"]


def test_a_route_that_listens_takes_as_long_as_it_likes() -> None:
    def said(detail: str) -> dict[str, Any]:
        routes = {"/events": route(9, bucket=2, state="lock", seconds=11.0), "/ok": route(20)}
        rows = snapshot(routes=routes, in_flight=stuck(2, "lock", detail, 0.1))
        return {**with_lines(rows, "a.py:3", "/events"), "le": [0.01, 10.0, 30.0, None]}

    assert "takes_long" not in causes(verdict(seen(said=said("event"))))
    assert "takes_long" in causes(verdict(seen(said=said("lock"))))


def test_waits_that_nobody_has_named_are_told_when_they_hang() -> None:
    def said(detail: str, seconds: float) -> list[str]:
        rows = snapshot(in_flight=stuck(5, "other", detail, seconds), routes={"/": route(9)})
        return causes(verdict(seen(said=with_lines(rows, "a.py:3", "/events"))))

    assert said("stream", 90.0) == ["healthy", "patient"]
    assert said("", 9.0) == ["healthy"]
    assert said("", 40.0) == ["other"]
    assert said("poll", 9.0) == ["other"]
