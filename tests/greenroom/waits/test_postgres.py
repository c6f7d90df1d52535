"""psycopg2 in the event loop, against the real embedded PostgreSQL: within the budget, cancelled, never off by one."""

import io
import os
import random
import select
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from functools import partial
from typing import Any

import gevent
import psycopg2
import pytest
from psycopg2 import extensions, extras
from psycopg2.errors import QueryCanceled

from greenroom import deadline, replacements
from greenroom.in_flight import CLIENT_LEFT, CURRENT, Record
from greenroom.waits import libpq, postgres, query_wait, resolving, two_users
from greenroom.waits.naming import Once
from greenroom.waits.stdlib import hub

LONG_WAIT_SECONDS = 30.0
# As the issue has it: a query of a request that is over is still active in PostgreSQL for no longer than this. Ten
# times as long here, because the machine may be busy; without cancelling it would be the query's 30 seconds.
ACTIVE_SECONDS = 2.0
SLEEP = "SELECT pg_sleep(30)"


class OwnConnection(extensions.connection):
    """As applications write them that know only psycopg2's class."""

    def __init__(self, dsn: str) -> None:
        extensions.connection.__init__(self, dsn)  # type: ignore[call-arg]


@pytest.fixture
def green() -> Iterator[None]:
    """psycopg2 as in a green worker, for the length of a test."""
    hub.install()
    postgres.install(silence_seconds=60)
    yield
    replacements.undo("psycopg2")


@pytest.fixture
def connect(green: None, postgres_url: str) -> Iterator[Callable[..., Any]]:
    made = []

    def connect_again(**kwargs: Any) -> Any:
        made.append(psycopg2.connect(postgres_url, **kwargs))
        return made[-1]

    yield connect_again
    for connection in made:
        connection.close()


@pytest.fixture
def connection(connect: Callable[..., Any]) -> Any:
    return connect()


@pytest.fixture
def watcher(connect: Callable[..., Any]) -> Any:
    """A cursor that looks at what the server does."""
    watching = connect()
    watching.autocommit = True
    return watching.cursor()


def rows(cursor: Any, sql: str, values: Any = None) -> list[Any]:
    cursor.execute(sql, values)
    return cursor.fetchall()


def wait_until(condition: Callable[[], object], what: str, seconds: float = LONG_WAIT_SECONDS) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {seconds:g} s in vain: {what}"
        gevent.sleep(0.005)


def is_active(watcher: Any, pid: int) -> bool:
    return bool(rows(watcher, "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'", [pid]))


def in_request(record: Record, call: Callable[[], Any]) -> gevent.Greenlet:
    """A greenlet that works for this request."""

    def run() -> Any:
        CURRENT.set(record)
        record.greenlet = gevent.getcurrent()
        try:
            return call()
        except Exception as exc:
            return exc

    return gevent.spawn(run)


def request_to(path: str, seconds: float = LONG_WAIT_SECONDS) -> Record:
    now = time.monotonic()
    return Record(now, now + seconds, environ={"REQUEST_METHOD": "GET", "PATH_INFO": path})


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


def test_greenlets_on_one_connection_take_turns_and_two_are_named(
    connection: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As threads do under any other server: nobody gets an error, or another one's rows."""
    monkeypatch.setattr(two_users, "told_to_wait", Once())
    order: list[int] = []

    def ask(number: int) -> list[Any]:
        cursor = connection.cursor()
        cursor.execute("SELECT %s, pg_sleep(0.005)", [number])
        order.append(number)
        return [number, cursor.fetchone()[0]]

    asking = [in_request(request_to(f"/{number % 2}"), partial(ask, number)) for number in range(20)]
    gevent.joinall(asking, timeout=LONG_WAIT_SECONDS, raise_error=True)
    connection.commit()

    assert [each.value for each in asking] == [[number, number] for number in range(20)]
    assert order == sorted(order), "first come, first served"
    said = [each.getMessage() for each in caplog.records if "several at once" in each.getMessage()]
    assert len(said) == 2, "once for each route"
    assert "GET /1 waits until 'BEGIN' of GET /0 is over, before it sends 'SELECT %s, pg_sleep(0.005)'" in said[0]


def test_who_waits_for_a_turn_ends_with_his_request_and_nobody_elses_statement(connection: Any) -> None:
    first = in_request(request_to("/first"), lambda: rows(connection.cursor(), "SELECT 1 FROM pg_sleep(0.3)"))
    gevent.sleep(0.02)

    second = in_request(request_to("/second", seconds=0.05), lambda: connection.cursor().execute("SELECT 2"))
    third = in_request(request_to("/third"), lambda: rows(connection.cursor(), "SELECT 3"))
    ended = gevent.spawn(connection.cursor().execute, "SELECT 4")
    gevent.sleep(0.02)
    ended.kill()

    assert isinstance(second.get(timeout=LONG_WAIT_SECONDS), psycopg2.errors.QueryCanceled)
    assert first.get(timeout=LONG_WAIT_SECONDS) == [(1,)]
    assert third.get(timeout=LONG_WAIT_SECONDS) == [(3,)]


def test_connection_that_others_wait_for_is_not_closed_when_the_cancelling_takes_a_while(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_wait, "GRACE_SECONDS", 0.0)
    connection.autocommit = True
    first = in_request(request_to("/first", seconds=0.1), lambda: connection.cursor().execute(SLEEP))
    gevent.sleep(0.02)

    second = in_request(request_to("/second"), lambda: rows(connection.cursor(), "SELECT 2"))

    assert isinstance(first.get(timeout=LONG_WAIT_SECONDS), QueryCanceled)
    assert second.get(timeout=LONG_WAIT_SECONDS) == [(2,)]


def test_commit_and_rollback_take_turns_too(connection: Any, watcher: Any) -> None:
    rows(connection.cursor(), "CREATE TEMP TABLE turns (number int); SELECT 1")
    adding = gevent.spawn(connection.cursor().execute, "INSERT INTO turns SELECT 1 FROM pg_sleep(0.1)")
    gevent.sleep(0.02)

    connection.commit()

    assert adding.ready()
    adding = gevent.spawn(connection.cursor().execute, "INSERT INTO turns SELECT 2 FROM pg_sleep(0.1)")
    gevent.sleep(0.02)
    connection.rollback()
    assert rows(connection.cursor(), "SELECT number FROM turns") == [(1,)]


def test_blocks_on_one_connection_come_one_after_the_other(connection: Any) -> None:
    """As under gevent alone, where psycopg2 waits in C: a transaction that waits for nothing else is nobody else's."""
    rows(connection.cursor(), "CREATE TEMP TABLE blocks (number int); SELECT 1")
    connection.commit()

    def add(number: int) -> None:
        with connection, connection.cursor() as cursor:
            for _ in range(3):
                cursor.execute("INSERT INTO blocks SELECT %s FROM pg_sleep(0.003)", [number])
            if number % 2:
                raise LookupError("a block that is rolled back")

    adding = [in_request(request_to(f"/{number}"), partial(add, number)) for number in range(6)]
    gevent.joinall(adding, timeout=LONG_WAIT_SECONDS, raise_error=True)

    assert [str(each.value) for each in adding[1::2]] == ["a block that is rolled back"] * 3
    added = rows(connection.cursor(), "SELECT number, count(*) FROM blocks GROUP BY 1 ORDER BY 1")
    assert added == [(0, 3), (2, 3), (4, 3)]


def test_copies_and_statements_take_turns(connection: Any) -> None:
    class Slow(io.StringIO):
        def read(self, *size: int) -> str:
            gevent.sleep(0.05)
            return super().read(*size)

    cursor = connection.cursor()
    cursor.execute("CREATE TEMP TABLE copied (number int)")
    copying = [gevent.spawn(connection.cursor().copy_from, Slow(f"{number}\n"), "copied") for number in (1, 2)]
    gevent.sleep(0.02)

    found = rows(cursor, "SELECT number FROM copied ORDER BY number")

    gevent.joinall(copying, timeout=LONG_WAIT_SECONDS, raise_error=True)
    assert found in ([(1,)], [(1,), (2,)])
    assert rows(cursor, "SELECT number FROM copied ORDER BY number") == [(1,), (2,)]


def test_who_waits_for_himself_is_told(connection: Any) -> None:
    class Asking(io.StringIO):
        def read(self, *size: int) -> str:
            connection.cursor().execute("SELECT 1")
            return ""

    cursor = connection.cursor()
    cursor.execute("CREATE TEMP TABLE copied (number int)")

    with pytest.raises(psycopg2.Error, match="'SELECT 1' can't be sent while 'COPY"):
        cursor.copy_from(Asking(), "copied")


def test_two_requests_in_one_transaction_are_both_named(
    connection: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_users, "told", Once())
    first, second = request_to("/first"), request_to("/second")

    for asking, end in ((first, None), (first, connection.commit), (second, None), (second, connection.rollback)):
        in_request(asking, lambda: connection.cursor().execute("SELECT 1")).get(timeout=LONG_WAIT_SECONDS)
        if end is not None:
            end()
    assert not caplog.records
    for asking in (first, second, second):
        in_request(asking, lambda: connection.cursor().execute("SELECT 2")).get(timeout=LONG_WAIT_SECONDS)

    (said,) = [each.getMessage() for each in caplog.records]
    assert "GET /second asks for 'SELECT 2' in a transaction that was begun for GET /first" in said


def test_statements_are_sent_as_they_are(connection: Any, watcher: Any) -> None:
    cursor = connection.cursor()

    cursor.execute("SELECT 1")

    sent = rows(watcher, "SELECT query, state FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid])
    assert sent == [("SELECT 1", "idle in transaction")]
    assert cursor.query == b"SELECT 1"
    assert rows(cursor, "SELECT current_query()") == [("SELECT current_query()",)]
    assert connection.status == extensions.STATUS_BEGIN
    connection.rollback()
    assert connection.status == extensions.STATUS_READY


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


@pytest.mark.parametrize("budget_seconds", [None, LONG_WAIT_SECONDS])
@pytest.mark.parametrize(
    "wrong",
    [
        *("SELEC 1", "SELECT no_such_column", "SELECT 1/0", "SELECT\n" * 9 + "nope", "VACUUM", "SELECT %s", "COMMIT"),
        *("", " ", "COPY nowhere FROM STDIN", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT 1; SELECT 2"),
    ],
)
@pytest.mark.parametrize("is_bytes", [False, True])
def test_results_and_errors_are_those_of_psycopg2(
    connection: Any, wrong: str, is_bytes: bool, budget_seconds: float | None
) -> None:
    def seen(cursor: Any) -> tuple[Any, ...]:
        error: Any = None
        del connection.notices[:]
        with deadline.budget(budget_seconds) if budget_seconds else nullcontext():
            try:
                cursor.execute(wrong.encode() if is_bytes else wrong, [1, 2] if "%s" in wrong else None)
            except Exception as exc:
                error = exc
        state = connection.status, connection.get_transaction_status(), cursor.query, cursor.statusmessage
        with suppress(psycopg2.Error):
            cursor.execute("SELECT 1")
        state += connection.status, connection.get_transaction_status(), connection.notices[:]
        connection.rollback()
        diag = getattr(error, "diag", None)
        shown = {name: getattr(diag, name) for name in dir(diag) if not name.startswith("_")}
        is_ours = getattr(error, "cursor", None) is cursor
        return type(error), str(error), getattr(error, "pgerror", None), is_ours, shown, *state

    assert seen(connection.cursor()) == seen(extensions.cursor(connection))


@pytest.mark.parametrize("is_autocommit", [False, True])
def test_with_block_rolls_back_and_leaves_the_connection_as_it_was(
    connection: Any, watcher: Any, is_autocommit: bool
) -> None:
    watcher.execute("CREATE TABLE IF NOT EXISTS with_block (number int)")
    connection.autocommit = is_autocommit
    with deadline.budget(LONG_WAIT_SECONDS):
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO with_block VALUES (1)")
        with pytest.raises(psycopg2.errors.DivisionByZero), connection:
            connection.cursor().execute("INSERT INTO with_block VALUES (2); SELECT 1/0")
        with suppress(ZeroDivisionError), connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO with_block VALUES (3)")
            raise ZeroDivisionError

    assert rows(watcher, "SELECT number FROM with_block") == [(1,)]
    assert connection.autocommit is is_autocommit
    assert connection.status == extensions.STATUS_READY
    watcher.execute("DROP TABLE with_block")


def test_typecasters_of_bytes_see_only_what_was_asked_for(connection: Any) -> None:
    extensions.register_type(psycopg2.BINARY, connection)
    as_bytes = extensions.new_type((25,), "BYTES", lambda value, _: value and value.encode())
    extensions.register_type(as_bytes, connection)

    with deadline.budget(LONG_WAIT_SECONDS):
        assert rows(connection.cursor(), "SELECT 'a'::text") == [(b"a",)]


def test_session_can_be_set_between_transactions(connection: Any) -> None:
    with deadline.budget(LONG_WAIT_SECONDS):
        rows(connection.cursor(), "SELECT 1")
        with pytest.raises(psycopg2.ProgrammingError, match="set_session cannot be used inside a transaction"):
            connection.set_session(readonly=True)
        connection.rollback()
        connection.set_session(readonly=True, deferrable=True, isolation_level="SERIALIZABLE")
        cursor = connection.cursor()

        assert rows(cursor, "SHOW transaction_read_only") == [("on",)]
        assert rows(cursor, "SHOW transaction_deferrable") == [("on",)]
        assert rows(cursor, "SHOW transaction_isolation") == [("serializable",)]


@pytest.mark.parametrize(
    "change", [{"isolation_level": "SERIALIZABLE"}, {"readonly": True}, {"isolation_level": "DEFAULT"}], ids=str
)
def test_session_settings_begin_transactions_as_psycopg2_would(connection: Any, change: dict[str, Any]) -> None:
    connection.set_session(**change)
    cursor = connection.cursor()

    is_read_only, level = rows(cursor, "SHOW transaction_read_only") + rows(cursor, "SHOW transaction_isolation")

    assert is_read_only == ("on" if change.get("readonly") else "off",)
    assert level == ("serializable" if change.get("isolation_level") == "SERIALIZABLE" else "read committed",)


def test_psycopg2_keeps_its_status_where_we_look_for_it(connection: Any) -> None:
    """If this fails, psycopg2 or CPython has changed; libpq.status_offset() must say None then."""
    assert libpq.STATUS_OFFSET is not None
    assert libpq.status_of(connection).value == connection.status == extensions.STATUS_READY
    assert callable(postgres.psycopg2_connect)


def test_copy_goes_both_ways_and_its_errors_are_the_servers(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE copied (number int, name text)")

    cursor.copy_from(io.StringIO("1\tone\n2\t\\N\n"), "copied")
    out, as_bytes = io.StringIO(), io.BytesIO()
    assert cursor.rowcount == 2
    cursor.copy_to(out, "copied", sep=",", null="-", columns=["number", "name"])
    cursor.copy_expert("COPY (SELECT repeat('é', 1000) FROM generate_series(1, 3000)) TO STDOUT", as_bytes)
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation) as caught:
        cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("x\ty\n"))
    connection.rollback()

    assert out.getvalue() == "1,one\n2,-\n"
    assert as_bytes.getvalue() == (("é" * 1000 + "\n") * 3000).encode()
    assert caught.value.pgcode == caught.value.diag.sqlstate == "22P02"
    assert caught.value.diag.context == 'COPY copied, line 1, column number: "x"'
    assert caught.value.cursor is cursor
    assert rows(cursor, "SELECT 'clean'") == [("clean",)]


def test_copy_ends_as_any_statement_does(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE copied (number int)")
    connection.commit()

    cursor.copy_expert(b"COPY copied FROM STDIN", io.BytesIO(b"1\n2\n3\n"))
    assert (cursor.rowcount, cursor.statusmessage, cursor.query) == (3, "COPY 3", b"COPY copied FROM STDIN")
    assert connection.status == extensions.STATUS_BEGIN
    cursor.copy_expert("COPY (SELECT 1 WHERE false) TO STDOUT", io.StringIO())
    assert (cursor.rowcount, cursor.statusmessage) == (0, "COPY 0")
    with pytest.raises(psycopg2.errors.DivisionByZero) as late:
        cursor.copy_expert("COPY (SELECT 1/(3-number) FROM copied) TO STDOUT", io.StringIO())
    assert late.value.diag.message_primary == "division by zero"
    connection.rollback()
    with pytest.raises(psycopg2.errors.UndefinedTable) as early:
        cursor.copy_to(io.StringIO(), "nowhere")
    assert early.value.cursor is cursor
    connection.rollback()
    with pytest.raises(psycopg2.ProgrammingError, match="copy_from"):
        cursor.execute("COPY copied FROM STDIN")
    connection.rollback()
    with pytest.raises(ZeroDivisionError):
        cursor.copy_expert("COPY (SELECT generate_series(1, 9)) TO STDOUT", Breaking())
    with pytest.raises(TypeError, match="readable file-like"):
        cursor.copy_expert("COPY copied FROM STDIN", None)

    assert rows(cursor, "SELECT 'clean'") == [("clean",)]


class Breaking(io.StringIO):
    def write(self, _: str) -> int:
        raise ZeroDivisionError


def test_copy_lets_others_run_and_a_reader_that_fails_copies_nothing(connection: Any) -> None:
    class Failing(io.StringIO):
        def read(self, size: Any = -1) -> str:
            gevent.sleep(0.01)
            raise ValueError("the upload broke off")

    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE copied (number int)")
    connection.commit()
    turns: list[int] = []
    ticking = gevent.spawn(lambda: [(turns.append(1), gevent.sleep(0.001)) for _ in range(10_000)])

    cursor.copy_expert("COPY (SELECT pg_sleep(0.1)) TO STDOUT", io.StringIO())
    ticking.kill()
    with pytest.raises(QueryCanceled, match="error in .read.. call: ValueError the upload broke off") as caught:
        cursor.copy_from(Failing(), "copied")
    connection.rollback()

    assert caught.value.pgcode == "57014"
    assert len(turns) > 5
    assert rows(cursor, "SELECT count(*) FROM copied") == [(0,)]


def test_copy_past_the_deadline_is_cancelled(connection: Any, watcher: Any) -> None:
    pid = connection.info.backend_pid

    with deadline.budget(0.1), pytest.raises(QueryCanceled):
        connection.cursor().copy_expert(f"COPY ({SLEEP}) TO STDOUT", io.StringIO())

    wait_until(lambda: not is_active(watcher, pid), "it is over in PostgreSQL", ACTIVE_SECONDS)


def test_large_object_says_what_to_do_instead(connection: Any) -> None:
    with pytest.raises(psycopg2.NotSupportedError, match="lo_get"):
        connection.lobject()


def test_server_side_cursor_streams(connection: Any) -> None:
    connection.cursor().execute("SELECT 1")  # a transaction that we began
    with connection.cursor("streamed") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT generate_series(1, 1000)")

        assert sum(number for (number,) in cursor) == 500_500


def test_notifications_arrive_while_somebody_waits_for_them(connection: Any, watcher: Any) -> None:
    connection.autocommit = True
    connection.cursor().execute("LISTEN news")

    watcher.execute("NOTIFY news, 'hello'")
    select.select([connection], [], [], LONG_WAIT_SECONDS)
    connection.poll()

    assert [note.payload for note in connection.notifies] == ["hello"]


def test_cancel_does_not_block_and_ends_the_query(connection: Any) -> None:
    asking = gevent.spawn(lambda: pytest.raises(QueryCanceled, connection.cursor().execute, SLEEP))
    gevent.sleep(0.05)

    connection.cancel()

    asking.get(timeout=LONG_WAIT_SECONDS)
    connection.rollback()
    assert rows(connection.cursor(), "SELECT 1") == [(1,)]


class Overriding(extensions.connection):
    """A class of an application's that has names of its own."""

    line = "A1"

    def begin(self) -> str:
        return "begun"

    def prepare(self) -> str:
        return "prepared"


def test_names_of_an_applications_class_are_its_own(connect: Callable[..., Any]) -> None:
    connection = connect(connection_factory=Overriding)

    assert rows(connection.cursor(), "SELECT 1") == [(1,)]
    assert (connection.line, connection.begin(), connection.prepare()) == ("A1", "begun", "prepared")
    assert connection.cursor_factory is None


def test_callback_of_the_application_is_left_alone(connection: Any) -> None:
    """psycogreen's, say. Everything else is as psycopg2 has it then."""
    extensions.set_wait_callback(extras.wait_select)
    cursor = connection.cursor()

    with pytest.raises(TypeError):
        cursor.execute("SELECT %s", 1)
    assert connection.status == extensions.STATUS_READY
    assert rows(cursor, "SHOW client_connection_check_interval") == [("0",)]
    with pytest.raises(psycopg2.ProgrammingError, match="asynchronous callback"):
        cursor.copy_expert("COPY nowhere TO STDOUT", io.StringIO())


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


def test_classes_of_the_application_wait_in_the_loop_too(connect: Callable[..., Any]) -> None:
    connection = connect(connection_factory=extras.LoggingConnection)
    connection.initialize(io.StringIO())
    cursor = connect(cursor_factory=extras.RealDictCursor).cursor()

    with deadline.budget(0.1), pytest.raises(QueryCanceled):
        connection.cursor().execute(SLEEP)

    assert rows(cursor, "SELECT 1 AS one") == [{"one": 1}]


FACTORIES: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "DictCursor": ({}, {"cursor_factory": extras.DictCursor}, [2]),
    "RealDictCursor for all": ({"cursor_factory": extras.RealDictCursor}, {}, {"n": 2}),
    "NamedTupleCursor by position": ({}, {"args": (None, extras.NamedTupleCursor)}, (2,)),
    "DictConnection": ({"connection_factory": extras.DictConnection}, {}, [2]),
    "RealDictConnection": ({"connection_factory": extras.RealDictConnection}, {}, {"n": 2}),
    "an own connection": ({"connection_factory": OwnConnection}, {}, (2,)),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_classes_of_the_application_can_do_all_that_ours_can(name: str, connect: Callable[..., Any]) -> None:
    to_connect, to_cursor, counted = FACTORIES[name]
    connection = connect(**to_connect)
    asked = {key: value for key, value in to_cursor.items() if key != "args"}

    def cursor() -> Any:
        return connection.cursor(*to_cursor.get("args", ()), **asked)

    copying, written = cursor(), io.StringIO()
    copying.execute("CREATE TEMPORARY TABLE copied (number int)")
    copying.copy_expert("COPY copied FROM stdin", io.StringIO("1\n2\n"))
    copying.copy_to(written, "copied")
    copying.execute("SELECT count(*) AS n FROM copied")
    (row,) = copying.fetchall()
    first = in_request(request_to("/first"), lambda: cursor().execute("SELECT pg_sleep(0.2)"))
    gevent.sleep(0.02)
    second = in_request(request_to("/second"), lambda: rows(cursor(), "SELECT 2 AS n"))

    assert written.getvalue() == "1\n2\n"
    assert row == counted
    assert [len(row) for row in second.get(timeout=LONG_WAIT_SECONDS)] == [1], "it took its turn"
    assert first.get(timeout=LONG_WAIT_SECONDS) is None
    with pytest.raises(psycopg2.NotSupportedError, match="lo_get"):
        connection.lobject(0)
    assert isinstance(copying, asked.get("cursor_factory", extensions.cursor))
    assert isinstance(connection, to_connect.get("connection_factory", extensions.connection))


def test_server_side_cursor_may_be_of_a_class_of_its_own(connection: Any) -> None:
    cursor = connection.cursor("streamed", cursor_factory=extras.RealDictCursor)
    cursor.itersize = 2

    cursor.execute("SELECT generate_series(1, 5) AS n")

    assert [row["n"] for row in cursor] == [1, 2, 3, 4, 5]


def test_what_is_no_class_makes_cursors_as_ever(connection: Any) -> None:
    cursor = connection.cursor(cursor_factory=lambda *args: extras.DictCursor(*args))

    assert rows(cursor, "SELECT 1") == [[1]]


def test_forked_child_can_not_disturb_its_parents_connection(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    pid = os.fork()
    if pid == 0:
        try:
            with suppress(psycopg2.Error):
                cursor.execute("SELECT 'from the child'")
            connection.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

    assert rows(cursor, "SELECT 'still mine'") == [("still mine",)]


def test_kept_watcher_is_gone_before_its_socket(connect: Callable[..., Any]) -> None:
    """A socket number that is used again must not wake, or fail to wake, the connection that had it before."""
    for _ in range(5):
        connection = connect()
        assert rows(connection.cursor(), "SELECT 1") == [(1,)]
        connection.close()
        assert connection.greenroom_line.watcher is None
    one, other = socket.socketpair()
    with closing(one), closing(other):
        other.send(b"x")
        gevent.socket.wait_read(one.fileno(), timeout=LONG_WAIT_SECONDS)


class TestConnecting:
    def test_silent_server_ends_at_connect_timeout(self, green: None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(psycopg2.OperationalError) as caught:
            psycopg2.connect(host="127.0.0.1", port=silent.getsockname()[1], dbname="x", user="x", connect_timeout=1)

        assert "connect_timeout: no connection within 1 s" in str(caught.value)

    def test_deadline_ends_connecting(self, green: None) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            deadline.budget(0.1),
            pytest.raises(psycopg2.OperationalError, match="before the request's time was over"),
        ):
            psycopg2.connect(host="127.0.0.1", port=silent.getsockname()[1], dbname="x", user="x", connect_timeout=30)

    def test_names_are_looked_up_here_and_kept_for_certificates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", answers({"db.example": ["::1", "127.0.0.1"], "other": ["10.0.0.9"]}))

        dsn = resolving.with_addresses("host=db.example,gone,other port=5432,5433,5434 sslmode=verify-full", 1.0)

        assert extensions.parse_dsn(dsn) == {
            "host": "db.example,db.example,other",
            "hostaddr": "::1,127.0.0.1,10.0.0.9",
            "port": "5432,5432,5434",
            "sslmode": "verify-full",
        }

    @pytest.mark.parametrize(
        "dsn",
        ["host=/run/postgresql", "host=127.0.0.1", "host=db hostaddr=10.0.0.1", "service=mine", "dbname=x", "host=::1"],
    )
    def test_what_needs_no_lookup_is_left_alone(self, monkeypatch: pytest.MonkeyPatch, dsn: str) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", answers({}))

        assert resolving.with_addresses(dsn, 1.0) == dsn

    def test_host_of_the_environment_is_looked_up_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", answers({"db.example": ["10.0.0.1"]}))
        monkeypatch.setenv("PGHOST", "db.example")

        assert extensions.parse_dsn(resolving.with_addresses("dbname=x", 1.0))["hostaddr"] == "10.0.0.1"

    def test_unknown_host_is_libpqs_error(self, green: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", answers({}))

        with pytest.raises(psycopg2.OperationalError, match='could not translate host name "gone" to address'):
            psycopg2.connect("host=gone dbname=x")

    def test_slow_lookup_ends_with_the_deadline(self, green: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: gevent.sleep(LONG_WAIT_SECONDS))

        with (
            deadline.budget(0.1),
            pytest.raises(psycopg2.OperationalError, match="no answer within|budget .* is spent"),
        ):
            psycopg2.connect("host=slow dbname=x")


def answers(known: dict[str, list[str]]) -> Callable[..., list[Any]]:
    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in known[host]]

    return getaddrinfo
