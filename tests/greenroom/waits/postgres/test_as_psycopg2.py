"""Results, errors, sessions and classes are those of psycopg2; connecting is bounded."""

import io
import socket
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import gevent
import psycopg2
import pytest
from psycopg2 import extensions, extras
from psycopg2.errors import QueryCanceled

from greenroom import deadline
from greenroom.waits import libpq, postgres, resolving

from .queries import LONG_WAIT_SECONDS, SLEEP, OwnConnection, in_request, request_to, rows


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
