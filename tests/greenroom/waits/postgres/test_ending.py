"""Queries end with their request, whatever ends that; their connections go on or are closed."""

import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import gevent
import psycopg2
import pytest
from psycopg2 import extensions
from psycopg2.errors import QueryCanceled

from greenroom import deadline
from greenroom.in_flight import CLIENT_LEFT
from greenroom.waits import libpq, postgres, query_wait

from .queries import ACTIVE_SECONDS, LONG_WAIT_SECONDS, SLEEP, in_request, is_active, request_to, rows, wait_until


def test_query_past_the_deadline_is_cancelled_and_the_connection_goes_on(connection: Any, watcher: Any) -> None:
    pid = connection.info.backend_pid
    cursor = connection.cursor()

    with deadline.budget(0.1), pytest.raises(QueryCanceled):
        cursor.execute(SLEEP)
    wait_until(lambda: not is_active(watcher, pid), "the query is over in PostgreSQL", ACTIVE_SECONDS)

    # On a busy machine the answer may have come too late, and the connection was given up; both are right.
    if not connection.closed:
        connection.rollback()
        assert rows(cursor, "SELECT 'own answer'") == [("own answer",)]


def test_query_of_a_client_that_left_is_cancelled(connection: Any, watcher: Any) -> None:
    record = request_to("/slow")
    asking = in_request(record, lambda: connection.cursor().execute(SLEEP))
    pid = connection.info.backend_pid
    wait_until(lambda: is_active(watcher, pid), "the query runs")

    record.cut(CLIENT_LEFT)

    assert isinstance(asking.get(timeout=LONG_WAIT_SECONDS), QueryCanceled)
    wait_until(lambda: not is_active(watcher, pid), "the query is over in PostgreSQL", ACTIVE_SECONDS)


def test_query_of_a_killed_greenlet_is_cancelled_and_its_connection_closed(connection: Any, watcher: Any) -> None:
    asking = gevent.spawn(connection.cursor().execute, SLEEP)
    pid = connection.info.backend_pid
    wait_until(lambda: is_active(watcher, pid), "the query runs")

    asking.kill()

    assert connection.closed, "the answer to the killed query could meet the next one"
    wait_until(lambda: not is_active(watcher, pid), "the query is over in PostgreSQL", ACTIVE_SECONDS)


def test_with_the_budget_spent_nothing_is_sent_and_the_connection_is_left_alone(connection: Any) -> None:
    cursor = connection.cursor()

    with deadline.budget(0.0), pytest.raises(QueryCanceled, match="was not sent"):
        cursor.execute("SELECT 1")

    assert connection.status == extensions.STATUS_READY
    assert rows(cursor, "SELECT 2") == [(2,)]


def test_commit_and_rollback_go_on_when_the_budget_is_spent(connection: Any, watcher: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE IF NOT EXISTS committed_late (number int)")
    with deadline.budget(LONG_WAIT_SECONDS) as record:
        cursor.execute("INSERT INTO committed_late VALUES (1)")
        record.deadline = time.monotonic() - 1

        connection.commit()

    assert rows(watcher, "SELECT number FROM committed_late") == [(1,)]
    watcher.execute("DROP TABLE committed_late")


def test_silent_server_costs_its_connection(connect: Callable[..., Any]) -> None:
    connection = connect()
    connection.greenroom_line.silence_seconds = 0.1

    with pytest.raises(psycopg2.OperationalError, match="no word from PostgreSQL within 0.1 s"):
        connection.cursor().execute(SLEEP)

    assert connection.closed


def test_cancelled_at_random_moments_no_answer_reaches_another_query(connect: Callable[..., Any]) -> None:
    """Budgets end around the moment when the answer comes: the next query on that connection must get its own."""
    chance = random.Random(7)
    connections = [connect() for _ in range(4)]
    outcomes: list[str] = []

    def ask(index: int) -> None:
        for number in range(40):
            nonce = f"{index}-{number}"
            cursor = connections[index].cursor()
            try:
                with deadline.budget(chance.uniform(0.001, 0.006)):
                    answer = rows(cursor, "SELECT %s, pg_sleep(%s)", [nonce, chance.uniform(0.0, 0.006)])
                outcomes.append("answered")
                assert answer[0][0] == nonce
            except QueryCanceled:
                outcomes.append("cancelled")
            if connections[index].closed:
                outcomes.append("closed")
                connections[index] = connect()
            connections[index].rollback()
            again = connections[index].cursor()
            assert rows(again, "SELECT %s", ["after " + nonce]) == [("after " + nonce,)]
            connections[index].rollback()

    asking = [gevent.spawn(ask, index) for index in range(len(connections))]
    gevent.joinall(asking, timeout=LONG_WAIT_SECONDS, raise_error=True)

    assert all(greenlet.successful() for greenlet in asking)
    assert {"answered", "cancelled"} <= set(outcomes)


def test_query_of_a_worker_that_is_killed_ends_in_postgres(watcher: Any, postgres_url: str) -> None:
    """PostgreSQL looks whether the client of a running statement is still there; nobody else could tell it."""
    code = """
        import sys
        import psycopg2
        from greenroom import deadline
        from greenroom.waits import postgres

        postgres.install(60)
        connection = psycopg2.connect(sys.argv[1])
        print(connection.info.backend_pid, flush=True)
        with deadline.budget(600):
            connection.cursor().execute("SELECT pg_sleep(60)")
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), postgres_url]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        wait_until(lambda: is_active(watcher, pid), "the query runs")

        worker.kill()

    wait_until(lambda: not is_active(watcher, pid), "the query is over in PostgreSQL", 10.0)


def test_postgres_looks_for_a_client_that_was_killed_and_only_in_our_transactions(connect: Callable[..., Any]) -> None:
    connection = connect()
    show = "SHOW client_connection_check_interval"

    for isolation_level in (None, "SERIALIZABLE"):
        connection.set_session(isolation_level=isolation_level)
        assert rows(connection.cursor(), show) == [("2s",)]
        connection.rollback()
    connection.set_session(isolation_level="DEFAULT", autocommit=True)

    assert rows(connection.cursor(), show) == [("0",)], "a session that goes to somebody else keeps nothing"


def test_query_of_a_process_that_was_killed_ends(watcher: Any, postgres_url: str) -> None:
    code = (
        "import sys, psycopg2\nfrom greenroom.waits import postgres\npostgres.install(60)\n"
        "psycopg2.connect(sys.argv[1]).cursor().execute('SELECT pg_sleep(30), $$of the killed$$')"
    )
    running = "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()"
    process = subprocess.Popen([sys.executable, "-c", code, postgres_url])
    try:
        wait_until(lambda: rows(watcher, running, ["SELECT pg_sleep%of the killed%"]), "the query runs")
    finally:
        process.kill()
        process.wait()

    wait_until(lambda: not rows(watcher, running, ["SELECT pg_sleep%of the killed%"]), "it is over", 15.0)


def test_server_that_can_not_look_is_asked_once(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "CHECKING", "SET LOCAL no_such_setting='2s'")
    monkeypatch.setattr(postgres, "can_check_client", [True])

    assert rows(connection.cursor(), "SELECT 1") == [(1,)]
    assert connection.get_transaction_status() == extensions.TRANSACTION_STATUS_INTRANS
    assert not postgres.can_check_client[0]
    connection.rollback()
    assert rows(connection.cursor(), "SELECT 2") == [(2,)]


def test_own_statement_timeout_is_left_alone(connect: Callable[..., Any]) -> None:
    connection = connect(options="-c statement_timeout=50s")
    cursor = connection.cursor()

    with deadline.budget(5.0):
        assert rows(cursor, "SHOW statement_timeout") == [("50s",)]
        cursor.execute("SET statement_timeout = '40s'")
        connection.commit()
        assert rows(cursor, "SHOW statement_timeout") == [("40s",)]


@pytest.mark.parametrize("change", ["set", "extend", "lift", "finish"])
def test_query_may_take_what_its_budget_has_become(connection: Any, change: str) -> None:
    """Also one that runs already when the budget changes, in a transaction that began before."""
    cursor = connection.cursor()
    with deadline.budget(0.3) as record:
        cursor.execute("SELECT 1")
        changing = {"set": [LONG_WAIT_SECONDS], "extend": [LONG_WAIT_SECONDS]}.get(change, [])
        gevent.spawn_later(0.05, getattr(record, change), *changing)

        cursor.execute("SELECT pg_sleep(0.6)")
        connection.commit()

    assert rows(cursor, "SELECT 'goes on'") == [("goes on",)]


def test_cancel_does_not_block_and_ends_the_query(connection: Any) -> None:
    asking = gevent.spawn(lambda: pytest.raises(QueryCanceled, connection.cursor().execute, SLEEP))
    gevent.sleep(0.05)

    connection.cancel()

    asking.get(timeout=LONG_WAIT_SECONDS)
    connection.rollback()
    assert rows(connection.cursor(), "SELECT 1") == [(1,)]


def test_connection_is_kept_when_the_loop_and_not_postgresql_was_late(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = query_wait.Cancel

    def cancel_and_compute(*args: Any) -> Any:
        """Somebody computes in the next turn of the loop, before the request to cancel has gone anywhere."""
        gevent.get_hub().loop.run_callback(time.sleep, 1.3)
        return plain(*args)

    monkeypatch.setattr(query_wait, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(query_wait, "Cancel", cancel_and_compute)

    with deadline.budget(0.1), pytest.raises(QueryCanceled, match="user request"):
        connection.cursor().execute(SLEEP)
    connection.rollback()

    assert rows(connection.cursor(), "SELECT 1") == [(1,)]


def test_cancels_with_an_older_libpq_too(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libpq, "libpq_17", None)
    monkeypatch.setattr(query_wait, "GRACE_SECONDS", LONG_WAIT_SECONDS)

    with deadline.budget(0.1), pytest.raises(QueryCanceled):
        connection.cursor().execute(SLEEP)
    connection.rollback()

    assert rows(connection.cursor(), "SELECT 1") == [(1,)]
