"""Greenlets on one connection take turns; copies, cursors and notifications let others run meanwhile."""

import io
import os
import select
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any

import gevent
import psycopg2
import pytest
from psycopg2 import extensions
from psycopg2.errors import QueryCanceled

from greenroom import deadline
from greenroom.waits import query_wait, two_users
from greenroom.waits.naming import Once

from .queries import ACTIVE_SECONDS, LONG_WAIT_SECONDS, SLEEP, in_request, is_active, request_to, rows, wait_until


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
