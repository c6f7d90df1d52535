"""Verdicts on what fails: exceptions, databases and upstreams, each with its line, its route and the next step."""

from typing import Any

import pytest

from .fakes import NOW, route, seen, snapshot
from .troubles import AT, causes, database, failing, failure, stuck, verdict, with_lines


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


def test_a_failure_whose_worker_has_ended_is_still_named() -> None:
    said = failing(failure(), failed=9, well=1)
    found = verdict(seen(said={**said, "failures": []}))

    assert "9 of 10 requests in the last 10 s fail: ZeroDivisionError (/price)" in found["sentence"]


def test_advice_on_an_exception_names_the_peer_by_its_library() -> None:
    row = failure("redis.exceptions.TimeoutError", message="Timeout reading from socket", library="redis")
    said = failing(row) | {"upstreams": {"10.0.0.9:7000": {"waits": 9, "seconds": 45.0}}}

    assert "Redis at 10.0.0.9:7000 does not answer within the timeout" in verdict(seen(said=said))["do"]
