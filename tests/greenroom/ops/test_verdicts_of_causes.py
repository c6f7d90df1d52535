"""Rules for what explains troubles: each names the cause with its object, and what is caused is not said again."""

from typing import Any

import pytest

from greenroom.insight.facts import waiting_for
from greenroom.ops import verdicts
from greenroom.ops.usual import Usual
from greenroom.ops.verdicts import pools
from greenroom.worker.balance import State

from .fakes import NOW, STATES, moment, request, route, seen, shown, snapshot

AT = 1.7e9  # of the fakes' moments


def verdict(*workers: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = shown(*workers, **more)["verdict"]
    return found


def causes(found: dict[str, Any]) -> list[str]:
    return [found["cause"], *(other["cause"] for other in found["others"])]


def stuck(count: int, state: str, detail: str, seconds: float, **more: Any) -> list[dict[str, Any]]:
    return [request(state, detail, seconds, id=f"r-{number}", **more) for number in range(count)]


def with_lines(said: dict[str, Any], line: str, of: str, library: str = "") -> dict[str, Any]:
    """Each wait of the snapshot is at this line."""
    for row in said["waiting"]:
        row["lines"] = [{"line": line, "route": of, "library": library, "count": row["count"]}]
    return said


def failure(name: str = "ZeroDivisionError", line: str = "shop/prices.py:9", **more: Any) -> dict[str, Any]:
    row = {"name": name, "line": line, "route": "/price", "message": "division by zero", "root": name, "number": ""}
    times = {"first_at": AT - 60.0, "last_at": AT - 1.0, "last_since": NOW - 1.0}
    return {**row, "library": "", "count": 7, **times, **more}


def failing(row: dict[str, Any], failed: int = 7, well: int = 100) -> dict[str, Any]:
    key = f"{row['name']} {row['route']}"
    routes = {row["route"]: route(failed, status="5xx"), "/ok": route(well)}
    counted = {key: {"class": row["name"], "route": row["route"], "count": failed}}
    return snapshot(routes=routes, failures=[row], failed=counted)


def database(**more: Any) -> dict[str, Any]:
    row = {"refused": 0, "timed_out": 0, "full": 0, "failed": 0, "heard_seconds": 0.1, "failed_seconds": None}
    return {"db:5432": {**row, "last_failure": "", **more}}


def test_an_exception_is_named_with_line_route_and_beginning() -> None:
    found = verdict(seen(said=failing(failure())))

    assert found["cause"] == "errors"
    assert found["level"] == "watch"
    assert found["sentence"].startswith(
        "7 of 107 requests in the last 10 s fail: ZeroDivisionError: division by zero at shop/prices.py:9 (/price), "
        "7 since"
    )
    assert "prices.py:9" in found["do"]


def test_an_exception_after_a_reload_blames_the_new_code() -> None:
    said = failing(failure(first_at=AT - 58.0))

    found = verdict(seen(said=said), reload={"at": AT - 60.0, "since": NOW - 60.0})

    assert "right after the reload at" in found["sentence"]
    assert "go back to the old one" in found["do"]


@pytest.mark.parametrize(
    ("more", "cause", "words"),
    [
        ({"name": "OSError", "number": "ENOSPC"}, "disk_full", "ENOSPC"),
        ({"name": "OSError", "number": "EMFILE"}, "descriptors", "EMFILE"),
        ({"name": "BrokenPipeError", "number": "EPIPE"}, "broken_pipe", "EPIPE"),
        ({"name": "MemoryError", "number": "MemoryError"}, "out_of_memory", "MemoryError"),
        ({"name": "psycopg2.errors.DiskFull", "message": "x: No space left on device"}, "disk_full", "ENOSPC"),
    ],
)
def test_a_limit_of_the_machine_is_named_as_that(more: dict[str, Any], cause: str, words: str) -> None:
    found = verdict(seen(said=failing(failure(**more))))

    assert causes(found) == [cause]
    assert words in found["sentence"]
    assert "shop/prices.py:9 (/price)" in found["sentence"]


def test_errors_that_the_server_asked_itself_for_are_nobodys_trouble() -> None:
    """The demo's source that always answers 503 is a route of the same server."""
    routes = {"/demo/error/<status>": route(2, status="5xx"), "/results": route(2)}
    upstreams = {"127.0.0.1:8000": {"waits": 2, "seconds": 0.1, "status_503": 2}}

    untold = {"127.0.0.1:8000": {"waits": 4, "seconds": 0.1}}  # asked past our transport

    assert verdict(seen(said=snapshot(routes=routes, upstreams=upstreams)))["level"] == "ok"
    assert verdict(seen(said=snapshot(routes=routes, upstreams=untold)))["level"] == "ok"
    assert verdict(seen(said=snapshot(routes=routes)))["cause"] == "errors"


def test_a_database_that_is_silent_is_named_and_gets_no_more_load() -> None:
    waits = [*stuck(4, "query", "BEGIN", 9.0), *stuck(8, "query", "SELECT * FROM t", 9.0), *stuck(9, "pool", "db", 8.0)]
    said = with_lines(snapshot(in_flight=waits, databases=database(heard_seconds=9.5)), "shop/db.py:4", "/orders")

    found = verdict(seen(said=said))

    assert causes(found) == ["database_silent"]
    assert found["sentence"] == ("PostgreSQL at db:5432 answers nobody since 9.5 s: 21 requests wait for it (/orders).")
    assert "would not help" in found["do"]


def test_a_long_query_is_no_silent_database() -> None:
    """Others hear of it, or nobody begins a transaction in vain."""
    slow = stuck(8, "query", "SELECT pg_sleep(?)", 9.0)

    heard = verdict(seen(said=snapshot(in_flight=slow, databases=database(heard_seconds=0.2))))
    alone = verdict(seen(said=snapshot(in_flight=slow, databases=database(heard_seconds=9.0))))

    assert (heard["cause"], alone["cause"]) == ("query", "query")


def test_a_database_that_refuses_or_is_full_is_named() -> None:
    failed = {"failed_seconds": 0.5, "heard_seconds": 30.0}

    refuses = verdict(seen(said=snapshot(databases=database(refused=9, last_failure="Connection refused", **failed))))
    full = verdict(seen(said=snapshot(databases=database(full=9, **failed), in_flight=stuck(6, "pool", "db", 3.0))))

    assert refuses["sentence"].startswith("PostgreSQL at db:5432 refuses connections (9 failed in the last 15 s")
    assert causes(full) == ["database_full"]
    assert "no free connection slot" in full["sentence"]
    assert "Raise" not in full["do"]


@pytest.mark.parametrize(
    "words", ['FATAL:  role "shop" does not exist', 'FATAL:  password authentication failed for user "shop"']
)
def test_a_database_that_refuses_the_login_is_not_told_to_be_down(words: str) -> None:
    failed = {"failed": 9, "failed_seconds": 0.5, "heard_seconds": None, "last_failure": words}

    found = verdict(seen(said=snapshot(databases=database(**failed))))

    assert found["sentence"] == "PostgreSQL at db:5432 refuses the login (9 failed in the last 15 s)."
    assert found["do"].startswith("It runs: a password that was changed, or another user or database")
    assert words in found["do"]
    assert "Start it" not in found["do"]


def test_an_upstream_that_fails_is_named_with_its_share_retries_and_line() -> None:
    upstream = {"waits": 40, "seconds": 2.0, "status_200": 20, "status_500": 20, "requests": 10, "calls": 40}
    lines = {"api:443": [{"line": "shop/api.py:7", "route": "/buy", "library": "requests", "count": 20}]}
    said = snapshot(upstreams={"api:443": upstream}, bad_callers=lines, routes={"/buy": route(10, status="5xx")})

    found = verdict(seen(said=said))

    assert found["level"] == "bad"
    assert found["sentence"] == (
        "Upstream api:443 answers 500 to 50% of its requests (20 of 40 in the last 10 s, 4 calls for each request)."
    )
    assert "Called at shop/api.py:7 (/buy)." in found["do"]


def test_an_upstream_whose_failures_no_client_feels_is_watched() -> None:
    upstream = {"waits": 40, "seconds": 2.0, "status_200": 20, "status_500": 20}

    found = verdict(seen(said=snapshot(upstreams={"api:443": upstream}, routes={"/buy": route(100)})))

    assert (found["level"], found["cause"]) == ("watch", "upstream_fails")


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


def test_memory_that_grows_names_the_route_and_when_it_is_full() -> None:
    limits = {
        "growth": {"bytes_per_second": 5e7, "bytes_per_request": 1e6, "until_full_seconds": 90.0},
        "memory": {"limit_bytes": 8e9},
    }
    growth = [{"route": "/leak", "count": 10, "bytes": 5e6}, {"route": "/ok", "count": 50, "bytes": 2e3}]

    found = verdict(seen(said=snapshot(growth=growth)), limits=limits)

    assert (found["level"], found["cause"]) == ("bad", "memory_grows")
    assert found["sentence"] == (
        "Memory grows by 5.0 MB for each request of /leak (50.0 MB/s): the limit of 8.0 GB is reached in 90 s."
    )


def test_few_descriptors_left_are_said() -> None:
    limits = {"descriptors": [{"worker": 1, "used": 255, "limit": 256}]}

    found = verdict(seen(said=snapshot()), limits=limits)

    assert (found["level"], found["cause"]) == ("bad", "descriptors")
    assert "255 of 256 file descriptors" in found["sentence"]


def test_a_disk_that_is_nearly_full_is_said() -> None:
    disk = {"path": "/srv", "free_bytes": 1e6, "total_bytes": 1e9, "free_files_ratio": 0.5}

    assert verdict(seen(said=snapshot()), limits={"disks": [disk]})["cause"] == "disk_full"
    assert verdict(seen(said=snapshot()), limits={"disks": [{**disk, "free_bytes": 5e8}]})["cause"] == "healthy"


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


def stall(line: str, **more: Any) -> dict[str, Any]:
    row = {"since": NOW - 10.0, "seconds": 2.0, "stolen_seconds": 0.0, "line": line, "route": "/a", "holds_gil": False}
    return {**row, "request": "r", "stack": [], "cpu_seconds": 2.0, "garbage_seconds": 0.0, **more}


def stalls(*last: dict[str, Any]) -> dict[str, Any]:
    return {"total": len(last), "seconds": 4.0, "current": None, "top": [], "last": list(last)}


def test_a_wait_in_c_is_told_from_computing() -> None:
    waits = verdict(seen(said=snapshot(stalls=stalls(stall("a.py:3", cpu_seconds=0.01)))))
    computes = verdict(seen(said=snapshot(stalls=stalls(stall("a.py:3")))))

    assert "waiting in C without using the CPU" in waits["sentence"]
    assert "use subprocess" in waits["do"]
    assert "waiting in C" not in computes["sentence"]


def test_garbage_collection_is_named_and_no_line_blamed() -> None:
    found = verdict(seen(said=snapshot(stalls=stalls(*[stall("a.py:3", garbage_seconds=1.9)] * 3))))

    assert causes(found) == ["garbage"]
    assert "3 times in the last minute, for up to 1.9 s" in found["sentence"]


def test_a_full_log_pipe_is_named() -> None:
    stack = ["logging/__init__.py:1086 flush", "logging/__init__.py:1114 emit", "a.py:3 view"]
    block = {"seconds": 5.0, "line": "a.py:3", "route": "/a", "stack": stack, "holds_gil": False}
    said = snapshot(stalls={**stalls(), "current": block})

    found = verdict(seen(said=said, silent=5.0, cpu=0.0))

    assert found["cause"] == "log_blocks"
    assert "nobody reads it (the pipe is full)" in found["sentence"]


def died(**ending: Any) -> dict[str, Any]:
    return {"at": AT, "since": NOW - 3.0, "kind": "died", "worker": 2, "pid": 9, "had": 0, "ending": ending}


def test_how_a_worker_died_is_said() -> None:
    def said(limits: Any = None, **ending: Any) -> str:
        return str(verdict(seen(said=snapshot()), events=[died(**ending)], limits=limits or {})["sentence"])

    assert ": it crashed in C code (SIGSEGV) at a.py:3;" in said(signal="SIGSEGV", line="a.py:3")
    assert ": somebody killed it (SIGKILL);" in said(signal="SIGKILL")
    assert ": the kernel killed it (SIGKILL), because memory was used up;" in said(
        limits={"oom_seconds": [40.0, 3.0]}, signal="SIGKILL"
    )
    assert ": it exited with code 7;" in said(code=7)
    assert ": it was told to abort (SIGABRT) at a.py:3;" in said(code=0, line="a.py:3")


def test_each_of_several_kills_by_the_kernel_is_one() -> None:
    seconds = (41.0, 22.0, 3.0)
    killed = [{**died(signal="SIGKILL"), "since": NOW - ago} for ago in seconds]
    crashed = {**died(signal="SIGSEGV"), "since": NOW - 50.0}

    found = verdict(seen(said=snapshot()), events=[crashed, *killed], limits={"oom_seconds": list(seconds)})

    assert "most of them: the kernel killed it (SIGKILL), because memory was used up." in found["sentence"]
    assert "GREENROOM_WORKER_MEMORY_MB" in found["do"]


def test_a_worker_that_died_tells_the_routes_that_it_had() -> None:
    event = {**died(signal="SIGKILL"), "had": 2, "routes": ["/export", "/"]}

    sentence = str(verdict(seen(said=snapshot()), events=[event], limits={})["sentence"])

    assert "with 2 requests in it (/export, /);" in sentence


def test_a_stall_of_a_worker_that_was_told_to_abort_has_the_line_once() -> None:
    stall = {"holds_gil": False, "line": "a.py:3", "seconds": 60.0, "route": "/slow"}
    event = {**died(code=1, line="a.py:3"), "stall": stall}

    sentence = str(verdict(seen(said=snapshot()), events=[event], limits={})["sentence"])

    assert ": it was told to abort (SIGABRT), blocked for 60 s at a.py:3 in /slow;" in sentence


def test_a_reload_that_failed_is_no_dead_worker() -> None:
    boot = {"error": "ModuleNotFoundError", "message": "No module named 'nope'", "line": "app.py:4", "at": AT}
    failures = [{**boot, "since": NOW - 5.0, "worker": 3, "pid": 30}]
    reload = {"at": AT - 6.0, "since": NOW - 6.0}

    found = verdict(seen(said=snapshot()), reload=reload, boot_failures=failures)
    mended = verdict(seen(said=snapshot()), reload={"at": AT - 2.0, "since": NOW - 2.0}, boot_failures=failures)

    assert (found["level"], found["cause"]) == ("watch", "reload_failed")
    assert found["sentence"].endswith(
        "failed: ModuleNotFoundError: No module named 'nope' at app.py:4; the old code serves on (1 worker)."
    )
    assert mended["cause"] == "healthy"


def test_an_import_that_hangs_is_named_with_its_line() -> None:
    booting = seen(2, {"version": 1, "booting": ["app.py:3 <module>"]}, state=State.BOOTING)
    booting.first_seen_at = NOW - 12.0

    found = verdict(seen(1, snapshot()), booting, reload={"at": AT - 13.0, "since": NOW - 13.0})

    assert found["cause"] == "import_hangs"
    assert "hangs: worker 2 imports the application for 12 s, now at app.py:3 <module>" in found["sentence"]


def test_one_worker_with_all_clients_while_another_idles_is_said() -> None:
    busy, idle = seen(1, snapshot(), connections=40.0, cpu=0.95), seen(2, snapshot(), connections=1.0, cpu=0.02)

    found = verdict(busy, idle)

    assert found["cause"] == "uneven"
    assert "worker 1 has 40 of 41 connections" in found["sentence"]


def test_overload_names_the_client_that_sends_most_of_it() -> None:
    clients = {"total": 1000.0, "known": 5, "top": [{"client": "10.0.0.7", "count": 820.0}], "shed": {"private": 300}}

    found = verdict(seen(said=snapshot(clients=clients), cpu=0.99), grown={"shed": 500, "requests": 100})

    assert "82% of all requests come from 10.0.0.7" in found["sentence"]
    assert "limit_req" in found["do"]


def test_slow_uploads_are_named_with_their_client() -> None:
    rows = stuck(60, "client", "body", 0.5, client="10.0.0.7", age_seconds=9.0)

    found = verdict(seen(said=snapshot(in_flight=rows)))

    assert found["cause"] == "slow_uploads"
    assert "60 requests wait for their clients to send the body" in found["sentence"]
    assert "100% of them from 10.0.0.7" in found["sentence"]


def test_children_that_are_waited_for_are_named() -> None:
    rows = stuck(9, "other", "subprocess", 3.0, route="/pdf")
    said = with_lines(snapshot(in_flight=rows), "shop/pdf.py:7", "/pdf")

    found = verdict(seen(said=said))

    assert found["cause"] == "other"
    assert found["sentence"].startswith("Requests wait for child processes: 9 of 9 requests")
    assert "shop/pdf.py:7 (/pdf)" in found["sentence"]
    assert "timeout=" in found["do"]


def test_a_full_cpu_that_requests_do_not_use_is_told_as_that() -> None:
    few = snapshot(routes={"/ok": route(50, seconds=0.001)})
    many = snapshot(routes={"/ok": route(50, seconds=0.15)})

    beside = verdict(seen(said=few, cpu=0.97, lag_seconds=0.3), grown={"requests": 50})
    theirs = verdict(seen(said=many, cpu=0.97, lag_seconds=0.3), grown={"requests": 50})
    quick = verdict(seen(said=few, cpu=0.97, lag_seconds=0.01), grown={"requests": 50})
    quick_theirs = verdict(seen(said=many, cpu=0.97, lag_seconds=0.01), grown={"requests": 50})

    assert beside["cause"] == theirs["cause"] == quick["cause"] == "cpu"
    assert quick_theirs["cause"] == "healthy"
    assert beside["sentence"].startswith("The CPU is full, and not by requests: in worker 1 something beside them")
    assert theirs["sentence"].startswith("The CPU is full: worker 1 computes all the time")


def test_the_lock_of_a_file_is_named_as_that() -> None:
    rows = stuck(7, "lock", "flock", 2.0, route="/report")
    said = with_lines(snapshot(in_flight=rows), "shop/report.py:5", "/report")

    found = verdict(seen(said=said))

    assert found["sentence"] == (
        "A file's lock (flock) is the bottleneck: 7 of 7 requests wait for it, the longest for 2 s, at "
        "shop/report.py:5 (/report)."
    )


def test_answers_that_one_client_reads_slowly_are_told_with_its_address() -> None:
    theirs = [
        request("client", "answer", 30.0, id=f"r-{number}", route="/big", client="10.0.0.7") for number in range(30)
    ]
    many = [
        request("client", "answer", 30.0, id=f"r-{number}", route="/big", client=f"10.0.1.{number}")
        for number in range(30)
    ]

    found = verdict(seen(said=snapshot(in_flight=theirs)))
    public = verdict(seen(said=snapshot(in_flight=many)))

    assert found["cause"] == "slow_readers"
    assert found["sentence"] == (
        "30 answers are read slowly by their clients (/big), the longest for 30.1 s, 100% of them by 10.0.0.7."
    )
    assert public["level"] == "ok"
    assert "slow_readers" in causes(public)


def test_a_line_that_waits_in_c_again_and_again_explains_an_overload_without_cpu() -> None:
    last = [
        {"since": NOW - 0.8 * number, "seconds": 0.7, "cpu_seconds": 0.0, "line": "v.py:7", "route": "/c"}
        for number in range(10)
    ]
    said = snapshot(stalls={"total": 10, "seconds": 7.0, "current": None, "top": [], "last": last})
    lines = {**said, "worker": {"in_flight": 9, "queued": 9, "limit_requests": 0, "line_seconds": 1.3}}

    idle = verdict(seen(said=lines, cpu=0.02))
    busy = verdict(seen(said=lines, cpu=0.99))

    assert (idle["cause"], idle["level"]) == ("stalls", "bad")
    assert "overload" not in causes(idle)
    assert "overload" in causes(busy)


def test_overload_of_clients_behind_one_address_blames_none() -> None:
    clients = {"total": 1000.0, "known": 1, "top": [{"client": "10.0.0.7", "count": 1000.0}], "shed": {"private": 300}}

    found = verdict(seen(said=snapshot(clients=clients), cpu=0.99), grown={"shed": 500, "requests": 100})

    assert found["cause"] == "overload"
    assert "10.0.0.7" not in found["sentence"]


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


@pytest.mark.parametrize(
    ("name", "message", "words"),
    [
        (
            "requests.exceptions.SSLError",
            "HTTPSConnectionPool(host='api.test', port=443): ... SSLError(SSLCertVerificationError(1, '…'))",
            "The certificate of api.test:443 is expired",
        ),
        (
            "requests.exceptions.ChunkedEncodingError",
            "IncompleteRead(2 bytes read)",
            "Upstream api:80 breaks its answers off",
        ),
        (
            "requests.exceptions.ConnectionError",
            "RemoteDisconnected('…')",
            "Upstream api:80 closes connections without",
        ),
        ("sqlite3.OperationalError", "database is locked", "SQLite has one writer at a time"),
        ("RecursionError", "maximum recursion depth exceeded", "calls itself without an end"),
        (
            "requests.exceptions.SSLError",
            "[SSL: WRONG_VERSION_NUMBER] wrong version",
            "Upstream api:80 answers something",
        ),
        ("sqlalchemy.exc.ProgrammingError", "(psycopg2.errors.UndefinedTable) relation", "run the migrations"),
        ("psycopg2.errors.ReadOnlySqlTransaction", "cannot execute UPDATE", "a standby after a failover"),
        ("psycopg2.OperationalError", 'FATAL: role "shop" does not exist', "The login is refused"),
        ("redis.exceptions.OutOfMemoryError", "OOM command not allowed when used memory", "Redis is at its maxmemory"),
        ("ValueError", "bad", "The log has the traceback; it ends at shop/prices.py:9."),
    ],
)
def test_exceptions_that_are_known_say_what_to_do_and_of_whom(name: str, message: str, words: str) -> None:
    said = failing(failure(name=name, root=name, message=message))
    said["upstreams"] = {"api:80": {"waits": 50, "seconds": 1.0}}

    found = verdict(seen(said=said))

    assert found["cause"] == "errors"
    assert words in found["do"]


def test_a_thread_that_computes_beside_the_requests_is_named_however_little_cpu_it_gets() -> None:
    rows = [{"line": "shop/prices.py:7", "started_at": "shop/__init__.py:30", "share": 0.72}]

    found = verdict(seen(said=snapshot(beside=rows), cpu=0.3))

    assert found["sentence"].startswith(
        "shop/prices.py:7 computes beside the requests for 72% of the time of worker 1 (started at shop/__init__.py:30)"
    )
    few = [{**rows[0], "share": 0.2}]
    assert verdict(seen(said=snapshot(beside=few)))["level"] == "ok"


def test_heads_that_are_too_large_are_told_with_the_limits() -> None:
    said = snapshot(routes={"/": route(20)}, clients={"refused": {"LimitRequestHeaders": 12, "InvalidRequestLine": 90}})

    found = verdict(seen(said=said))

    assert found["cause"] == "refused"
    assert found["sentence"].startswith("12 requests in the last 10 s are refused before the application sees them")
    assert "limit_request_field_size" in found["do"]


def test_stalls_that_fill_what_is_kept_are_bad_and_told_for_the_time_that_they_cover() -> None:
    stalls = [
        {"since": NOW - 0.8 * number, "seconds": 0.7, "cpu_seconds": 0.0, "line": "v.py:7", "route": "/c"}
        for number in range(30)
    ]
    said = snapshot(stalls={"total": 30, "seconds": 21.0, "current": None, "top": [], "last": stalls})

    found = verdict(seen(said=said))

    assert found["level"] == "bad"
    assert found["sentence"].startswith("v.py:7 (/c) blocked worker 1 for 14 s in the last 15.9 s (20 stalls, waiting")


def test_every_rule_bears_a_moment_with_rows_that_say_little() -> None:
    said = snapshot()
    said["waiting"] = waiting_for([("lock", "lock", 9.0)] * 9)
    bare = {"name": "X", "line": "", "route": "other", "message": "", "root": "", "number": "", "library": ""}
    said["failures"] = [{**bare, "count": 1, "first_at": AT, "last_at": AT, "last_since": NOW}]
    said["holders"] = [{"count": 9, "longest_seconds": 9.0}]

    assert shown(seen(said=said))["verdict"]["sentence"]
    assert moment(seen(said=said)).sums["failed"] == {}


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


def test_clients_that_hang_up_are_told() -> None:
    left = {**route(20, seconds=1.0, state="upstream"), "cut": 18}
    found = verdict(seen(said=snapshot(routes={"/stock": left, "/ok": route(100)})))

    assert found["cause"] == "given_up"
    assert found["sentence"].startswith("18 of 20 requests of /stock in the last 10 s are given up by their clients")
    assert "after 1 s on average; the time goes to an upstream" in found["sentence"]

    few = verdict(seen(said=snapshot(routes={"/stock": {**left, "cut": 4}, "/ok": route(100)})))
    assert few["cause"] == "healthy"


def test_what_redaction_hides_in_a_message_is_told_by_the_exception_that_began_it() -> None:
    row = failure(
        "requests.exceptions.SSLError",
        message="HTTPSConnectionPool(host='api', port=443): (Caused by SSLError('\N{HORIZONTAL ELLIPSIS}'))",
        root="ssl.SSLCertVerificationError",
        began="certificate verify failed: certificate has expired",
    )
    found = verdict(seen(said=failing(row)))

    assert (
        "which began as ssl.SSLCertVerificationError: certificate verify failed: certificate has expired at"
        in (found["sentence"])
    )
    assert "The certificate of api:443 is expired" in found["do"]


@pytest.mark.parametrize(
    ("message", "do"),
    [
        ("FATAL: sorry, too many clients already", "no free connection slot"),
        ("FATAL: query_wait_timeout", "SHOW POOLS"),
        ("[Errno 13] Permission denied: '/srv/uploads'", "ls -ld"),
        ("canceling statement due to lock timeout", "pg_blocking_pids"),
    ],
)
def test_errors_of_any_driver_come_with_the_next_step(message: str, do: str) -> None:
    found = verdict(seen(said=failing(failure("sqlalchemy.exc.OperationalError", message=message))))

    assert do in found["do"]


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


def test_a_first_start_that_takes_long_is_no_reload() -> None:
    booting = seen(2, state=State.BOOTING)
    booting.first_seen_at = NOW - 9.0
    assert "import_hangs" not in causes(verdict(seen(), booting))

    booting.first_seen_at = NOW - 20.0
    found = verdict(seen(), booting)
    assert found["cause"] == "import_hangs"
    assert found["sentence"] == "worker 2 imports the application for 20 s; 1 worker serves."


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


def test_a_cpu_quota_that_stops_the_workers_is_the_limit() -> None:
    limits = {"quota": {"cores": 0.2, "stopped_ratio": 0.9}}
    late = {"lag_seconds": 0.3, "now": NOW}
    busy = seen(1, snapshot(), cpu=0.1)
    busy.line["lag_seconds"] = 0.3
    found = verdict(busy, limits=limits, history=[late])

    assert (found["level"], found["cause"]) == ("watch", "throttled")
    assert found["sentence"].startswith("The CPU quota of 0.2 cores stops the workers in 90% of its periods")
    few = {"quota": {"cores": 0.2, "stopped_ratio": 0.3}}
    assert verdict(seen(1, snapshot()), limits=few)["cause"] == "healthy", "nobody feels it"
    assert verdict(seen(1, snapshot()), limits=limits)["cause"] == "throttled"


def test_threads_and_children_that_do_not_end_are_named() -> None:
    rows = [
        {"worker": 1, "kind": "threads", "name": "shop.py:9", "count": 900, "grown": 600, "seconds": 40.0},
        {"worker": 2, "kind": "threads", "name": "shop.py:9", "count": 800, "grown": 500, "seconds": 40.0},
        {"worker": 1, "kind": "children", "name": "sleep", "count": 40, "grown": 30, "seconds": 40.0},
    ]
    found = verdict(seen(said=snapshot()), leaks=rows)

    assert causes(found) == ["threads_left", "children_left"]
    assert found["sentence"] == (
        "Threads that are started at shop.py:9 do not end: 1700 of them live in 2 workers, 1100 more in the last 40 s."
    )
    assert found["others"][0]["sentence"] == (
        "Child processes (sleep) are started and not ended: worker 1 has 40, 30 more in the last 40 s."
    )


def test_a_log_that_is_written_much_is_not_one_that_nobody_reads() -> None:
    stack = ["logging/__init__.py:1086 flush", "logging/__init__.py:1114 emit", "a.py:3 view"]
    block = {"seconds": 5.0, "line": "a.py:3", "route": "/a", "stack": stack, "holds_gil": False}
    found = verdict(seen(said=snapshot(stalls={**stalls(), "current": block}), silent=5.0, cpu=0.9))

    assert found["cause"] == "blocked"
    assert "nobody reads" not in found["sentence"] + found["do"]
    assert "better said once" in found["do"]


def test_large_gains_are_said_in_whole_numbers() -> None:
    assert [pools.times(ratio) for ratio in (1.54, 9.9, 12.4, 131.0, 1778.0)] == ["1.5", "9.9", "12", "130", "1800"]


def test_a_rule_that_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(moment: Any, seen: Any) -> Any:
        raise KeyError("told")

    monkeypatch.setattr(verdicts, "RULES", (broken, *verdicts.RULES))
    logged: list[str] = []
    monkeypatch.setattr(verdicts.logger, "exception", logged.append)

    found = [verdict(seen(said=failing(failure()))) for _ in range(2)]

    assert [one["cause"] for one in found] == ["errors", "errors"]
    assert logged == ["a rule for verdicts failed"]


def test_clients_that_are_refused_and_were_not_before_are_told() -> None:
    def sums(count: int, refused: int) -> dict[str, Any]:
        return {**route(count), "statuses": {"2xx": count - refused, "4xx": refused}}

    usual = Usual()
    for step in range(6):
        usual.look(step * 10.0, {"/me": sums(100 * step, step), "/other-me": sums(100 * step, 60 * step)})
    now = snapshot(routes={"/me": sums(100, 60), "/other-me": sums(100, 60), "/ok": route(100)})
    found = verdict(seen(said=now), usual=usual)

    assert found["cause"] == "refused_more"
    assert found["sentence"] == "60% of the answers of /me in the last 10 s are 4xx, 1% before."
    assert "SECRET_KEY" in found["do"]
    assert verdict(seen(said=now))["cause"] == "healthy", "nothing is known of before"


def test_a_reload_whose_configuration_can_not_be_read_is_told_until_the_next_one() -> None:
    why = {"error": "SyntaxError", "message": "'(' was never closed", "line": "gunicorn.conf.py:1"}
    found = verdict(seen(said=snapshot()), reload={"at": AT - 6.0, "since": NOW - 6.0, "refused": why})

    assert (found["level"], found["cause"]) == ("watch", "reload_refused")
    assert found["sentence"].endswith(
        "changed nothing, its configuration can't be read: SyntaxError: '(' was never closed at gunicorn.conf.py:1; "
        "the workers go on as they are."
    )
    assert verdict(seen(said=snapshot()), reload={"at": AT, "since": NOW, "refused": None})["cause"] == "healthy"


def test_a_failure_whose_worker_has_ended_is_still_named() -> None:
    said = failing(failure(), failed=9, well=1)
    found = verdict(seen(said={**said, "failures": []}))

    assert "9 of 10 requests in the last 10 s fail: ZeroDivisionError (/price)" in found["sentence"]


def test_a_worker_that_its_own_alarm_ended_did_not_turn_its_loop() -> None:
    found = verdict(seen(said=snapshot()), events=[died(signal="SIGALRM", line="a.py:3")])

    assert ": its loop did not turn for the timeout, and the server ended it at a.py:3" in found["sentence"]


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


def test_advice_on_an_exception_names_the_peer_by_its_library() -> None:
    row = failure("redis.exceptions.TimeoutError", message="Timeout reading from socket", library="redis")
    said = failing(row) | {"upstreams": {"10.0.0.9:7000": {"waits": 9, "seconds": 45.0}}}

    assert "Redis at 10.0.0.9:7000 does not answer within the timeout" in verdict(seen(said=said))["do"]
