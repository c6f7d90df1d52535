"""sqlite3 in patched processes of their own: who waits for a lock lets others run, with the same results and errors."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PREPARED = f"""
import warnings; warnings.filterwarnings("ignore", "Passing more than 1 positional argument")  # from Python 3.13 on
import sys; sys.path.insert(0, {str(ROOT)!r})
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings())
import sqlite3, time
import gevent

PATH = sys.argv[1]
LONG_WAIT_SECONDS = 30
turns = []

def turn():
    while True:
        gevent.sleep(0.002)
        turns.append(time.monotonic())

gevent.spawn(turn)

def longest_turn():
    return max(after - before for before, after in zip(turns, turns[1:]))

with sqlite3.connect(PATH) as first:
    first.execute("CREATE TABLE visits (number, name)")

def locked(call, *args):
    "How long it took until `call` said that the database is locked."
    began = time.monotonic()
    try:
        call(*args)
    except sqlite3.OperationalError as exc:
        assert (str(exc), exc.sqlite_errorname) == ("database is locked", "SQLITE_BUSY"), exc
        return time.monotonic() - began
    raise AssertionError("it was not locked")
"""


Check = Callable[[str], None]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(code: str) -> None:
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", PREPARED + textwrap.dedent(code), str(tmp_path / "visits.sqlite")],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert result.returncode == 0, result.stderr

    return run


def test_writers_that_wait_within_their_transaction_come_one_after_the_other(check: Check) -> None:
    check(
        """
        def write(number):
            connection = sqlite3.connect(PATH, timeout=LONG_WAIT_SECONDS)
            with connection:
                connection.execute("INSERT INTO visits VALUES (?, 'x')", (number,))
                time.sleep(0.02)
            connection.close()

        writers = [gevent.spawn(write, number) for number in range(20)]
        gevent.joinall(writers, timeout=LONG_WAIT_SECONDS, raise_error=True)
        assert sorted(row[0] for row in first.execute("SELECT number FROM visits")) == list(range(20))
        assert longest_turn() < 1.0, longest_turn()
        """
    )


def test_timeout_is_the_connection_s_own_however_it_is_set(check: Check) -> None:
    check(
        """
        holder = sqlite3.connect(PATH, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        waits = sqlite3.connect(PATH, 0.3)
        insert = "INSERT INTO visits VALUES (1, 'x')"
        assert 0.3 <= locked(waits.execute, insert) < 2
        assert waits.in_transaction
        waits.rollback()
        assert waits.execute("PRAGMA busy_timeout").fetchone() == (300,)
        assert waits.execute("PRAGMA busy_timeout = 100").fetchone() == (100,)
        assert 0.1 <= locked(waits.cursor().execute, insert) < 0.29
        assert locked(sqlite3.connect(PATH, timeout=0).execute, insert) < 0.05
        holder.execute("COMMIT")
        waits.rollback()
        assert waits.execute(insert).rowcount == 1
        assert longest_turn() < 0.25, longest_turn()
        """
    )


def test_those_who_wait_for_each_other_are_told_at_once_by_sqlite(check: Check) -> None:
    check(
        """
        one, other = (sqlite3.connect(PATH, isolation_level=None) for _ in range(2))
        for connection in (one, other):
            connection.execute("BEGIN")
            connection.execute("SELECT * FROM visits").fetchall()
        one.execute("INSERT INTO visits VALUES (1, 'x')")
        commits = gevent.spawn(one.execute, "COMMIT")
        while not one._turn.locked():
            gevent.sleep(0.001)
        gevent.sleep(0.1)
        assert locked(other.execute, "INSERT INTO visits VALUES (2, 'x')") < 1
        other.execute("ROLLBACK")
        commits.get(timeout=LONG_WAIT_SECONDS)
        assert not one.in_transaction
        """
    )


def test_bulk_calls_wait_as_well_and_take_each_row_once(check: Check) -> None:
    check(
        """
        holder = sqlite3.connect(PATH, isolation_level=None)

        def meanwhile(function):
            holder.execute("BEGIN EXCLUSIVE")
            is_over = []
            gevent.spawn_later(0.2, lambda: is_over.append(holder.execute("ROLLBACK")))
            function()
            assert is_over

        connection = sqlite3.connect(PATH)
        rows = ((number, "x") for number in range(3))
        meanwhile(lambda: connection.executemany("INSERT INTO visits VALUES (?, ?)", rows))
        connection.commit()
        script = "INSERT INTO visits VALUES (3, 'y'); INSERT INTO visits VALUES (4, 'z');"
        meanwhile(lambda: connection.executescript(script))
        assert connection.execute("SELECT count(*), max(number) FROM visits").fetchone() == (5, 4)
        copy = sqlite3.connect(":memory:")
        meanwhile(lambda: connection.backup(copy, sleep=0.01))
        assert copy.execute("SELECT count(*) FROM visits").fetchone() == (5,)
        """
    )


def test_commit_that_waits_loses_nothing_and_one_that_fails_rolls_back(check: Check) -> None:
    check(
        """
        reader = sqlite3.connect(PATH, isolation_level=None)

        def reading(seconds):
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM visits").fetchall()
            return gevent.spawn_later(seconds, reader.execute, "ROLLBACK")

        writer = sqlite3.connect(PATH, timeout=0.5)
        reading(0.1)
        with writer:
            writer.execute("INSERT INTO visits VALUES (1, 'kept')")
        ends = reading(1.5)

        def write():
            with writer:
                writer.execute("INSERT INTO visits VALUES (2, 'lost')")

        assert 0.5 <= locked(write) < 1.4
        assert not writer.in_transaction
        ends.get()
        gevent.joinall([ends])
        assert [row[1] for row in writer.execute("SELECT * FROM visits")] == ["kept"]
        """
    )


def test_connection_that_waits_in_a_thread_is_used_by_nobody_else_meanwhile(check: Check) -> None:
    check(
        """
        holder = sqlite3.connect(PATH, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        shared = sqlite3.connect(PATH, check_same_thread=False)
        waits = gevent.spawn(shared.execute, "INSERT INTO visits VALUES (1, 'x')")
        while not shared._turn.locked():
            gevent.sleep(0.001)
        asks = gevent.spawn(lambda: shared.execute("SELECT count(*) FROM visits").fetchone())
        gevent.sleep(0.1)
        assert not asks.ready() and longest_turn() < 0.25
        holder.execute("COMMIT")
        assert asks.get(timeout=LONG_WAIT_SECONDS) == (1,)
        waits.get(timeout=LONG_WAIT_SECONDS)
        """
    )


def test_real_threads_and_greenlets_share_a_connection(check: Check) -> None:
    """Where one of them waits in a thread, the others wait for it: they had no loop to do so, and failed."""
    check(
        """
        from greenroom.waits.sqlite import slow
        from greenroom.waits.threads import start_thread
        ROWS = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 20000) SELECT n FROM r"
        QUERY = f"SELECT ?, max(n) FROM ({ROWS})"
        slow.slow_seconds = 0.000001
        slow.took(QUERY, 1)
        shared = sqlite3.connect(PATH, check_same_thread=False)
        found = {}

        def ask(number):
            try:
                found[number] = [shared.execute(QUERY, (number * 100 + i,)).fetchall() for i in range(10)]
            except BaseException as exc:
                found[number] = exc

        for number in range(3):
            start_thread(ask, (number,))
            gevent.spawn(ask, number + 3)
        until = time.monotonic() + LONG_WAIT_SECONDS
        while len(found) < 6 and time.monotonic() < until:
            gevent.sleep(0.01)
        assert found == {n: [[(n * 100 + i, 20000)] for i in range(10)] for n in range(6)}, found
        assert not shared._turn.locked() and shared._away_in == 0
        """
    )


def test_thread_that_waits_for_a_lock_on_a_shared_connection_leaves_the_loop_alone(check: Check) -> None:
    check(
        """
        from greenroom.waits.threads import start_thread
        holder = sqlite3.connect(PATH, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        shared = sqlite3.connect(PATH, isolation_level=None, timeout=LONG_WAIT_SECONDS, check_same_thread=False)
        start_thread(shared.execute, ("INSERT INTO visits VALUES (1, 'x')",))
        while not shared._away_in:
            gevent.sleep(0.001)
        asks = gevent.spawn(lambda: shared.execute("SELECT count(*) FROM visits").fetchone())
        gevent.sleep(0.1)
        assert not asks.ready()
        holder.execute("COMMIT")
        assert asks.get(timeout=LONG_WAIT_SECONDS) == (1,)
        """
    )


def test_last_row_of_a_statement_that_writes_and_commits_has_the_connection_s_patience(check: Check) -> None:
    """Its transaction ends with that row, for which it waits until no other process reads."""
    check(
        """
        import subprocess
        code = "; ".join((
            "import sqlite3, sys, time", "c = sqlite3.connect(sys.argv[1], isolation_level=None)", "c.execute('BEGIN')",
            "c.execute('SELECT * FROM visits').fetchall()", "print('reads', flush=True)", "sys.stdin.read(1)",
            "time.sleep(0.3)", "c.execute('COMMIT')",
        ))
        command = [sys.executable, "-c", code, PATH]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout.readline().strip() == "reads"
            writer = sqlite3.connect(PATH, isolation_level=None, timeout=LONG_WAIT_SECONDS)
            row = writer.execute("INSERT INTO visits VALUES (1, 'x') RETURNING number")
            reader.stdin.write("x")
            reader.stdin.flush()
            assert row.fetchone() == (1,)
        assert writer.execute("SELECT count(*) FROM visits").fetchall() == [(1,)]
        assert writer.execute("PRAGMA busy_timeout").fetchone() == (LONG_WAIT_SECONDS * 1000,)
        assert not writer._is_patient
        """
    )


def test_who_waits_says_whose_transaction_it_waits_for(check: Check) -> None:
    check(
        """
        from greenroom.in_flight import CURRENT, Record
        code = "def begin(connection):\\n    connection.execute('BEGIN IMMEDIATE')"
        module = {}
        exec(compile(code, "shop/views.py", "exec"), module)
        holder, first_waiter, waiter = (sqlite3.connect(PATH, isolation_level=None) for _ in range(3))
        record = Record(arrived=0.0)
        record.environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/visit"}
        gevent.spawn(lambda: (CURRENT.set(record), module["begin"](holder))).get()
        waits = [gevent.spawn(one.execute, "INSERT INTO visits VALUES (1, 'x')") for one in (first_waiter, waiter)]
        while not waiter._turn.locked():
            gevent.sleep(0.001)
        said = "visits.sqlite, in a transaction since shop/views.py:2 (GET /visit)"
        assert waiter._waits_for() == said, waiter._waits_for()
        holder.execute("COMMIT")
        gevent.joinall(waits, timeout=LONG_WAIT_SECONDS, raise_error=True)
        assert waiter._waits_for() == "visits.sqlite"
        """
    )


def test_classes_functions_and_thread_rules_are_python_s(check: Check) -> None:
    check(
        """
        import asyncio
        from sqlite3 import dbapi2

        class Own(sqlite3.Connection):
            def cursor(self, *args):
                self.asked = True
                return super().cursor(*args)

        class OwnCursor(sqlite3.Cursor):
            def execute(self, sql, *args):
                return super().execute(sql.replace("%s", "?"), *args)

        own = sqlite3.connect(PATH, 5.0, sqlite3.PARSE_DECLTYPES, None, True, Own)
        assert type(own) is Own and type(first) is sqlite3.Connection is dbapi2.Connection
        assert type(own.execute("SELECT 1")) is sqlite3.Cursor is dbapi2.Cursor and own.asked
        assert own.cursor(OwnCursor).execute("SELECT %s", (7,)).fetchone() == (7,)
        assert own.isolation_level is None and first.isolation_level == ""
        own.create_function("double", 1, lambda number: own.execute("SELECT ? * 2", (number,)).fetchone()[0])
        assert own.execute("SELECT double(21)").fetchone() == (42,)
        own.executemany("INSERT INTO visits VALUES (double(?), 'x')", [(1,), (2,)])
        assert own.execute("SELECT number FROM visits").fetchall() == [(2,), (4,)]
        own.row_factory = sqlite3.Row
        assert own.execute("SELECT 1 AS one").fetchone()["one"] == 1

        async def use(connection):
            return await asyncio.to_thread(lambda: connection.execute("SELECT 1").fetchone()[0])

        try:
            asyncio.run(use(first))
        except sqlite3.ProgrammingError as exc:
            assert "can only be used in that same thread" in str(exc)
        else:
            raise AssertionError("it is another thread")
        assert asyncio.run(use(sqlite3.connect(PATH, check_same_thread=False))) == 1

        connection = sqlite3.connect(PATH)
        connection.execute("INSERT INTO visits VALUES (9, 'x')")
        connection.isolation_level = None
        assert not connection.in_transaction, "as Python has it, that commits"
        for wrong in (lambda: connection.execute(), lambda: connection.execute("SELEC"), lambda: sqlite3.Cursor(7)):
            try:
                wrong()
            except (TypeError, sqlite3.OperationalError):
                continue
            raise AssertionError("it is wrong")
        """
    )


def test_a_wait_ends_with_the_request_s_time(check: Check) -> None:
    check(
        """
        import contextvars
        from greenroom import clock
        from greenroom.in_flight import CURRENT, Record
        holder = sqlite3.connect(PATH, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")

        def within(seconds):
            CURRENT.set(Record(arrived=clock.now(), deadline=clock.now() + seconds))
            took = locked(sqlite3.connect(PATH, timeout=60).execute, "INSERT INTO visits VALUES (1, 'x')")
            time.sleep(0.01)  # that was the end: cleaning up has its grace
            return took

        assert contextvars.Context().run(within, 0.3) < 5
        """
    )


def test_flask_sqlalchemy_s_writers_wait_for_each_other(check: Check) -> None:
    check(
        """
        from sqlalchemy import create_engine, text
        engine = create_engine(f"sqlite:///{PATH}", pool_size=20)

        def write(number):
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO visits VALUES (:number, 'x')"), [{"number": number}])
                time.sleep(0.02)

        writers = [gevent.spawn(write, number) for number in range(10)]
        gevent.joinall(writers, timeout=LONG_WAIT_SECONDS, raise_error=True)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM visits")).scalar() == 10
        assert longest_turn() < 1.0, longest_turn()
        """
    )


def test_it_can_be_left_alone() -> None:
    code = "import sqlite3; assert sqlite3.connect(':memory:').execute('SELECT 1').fetchone() == (1,)\n"
    code += (
        "assert type(sqlite3.connect(':memory:')).__module__ == 'sqlite3' and not hasattr(sqlite3.Connection, '_away')"
    )
    prepared = PREPARED.split("import sqlite3")[0].replace("Settings()", "Settings(patch_sqlite=False)")

    result = subprocess.run([sys.executable, "-c", prepared + code], capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stderr


def test_long_scan_holds_the_loop_once_at_most(check: Check) -> None:
    check(
        """
        count = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1500000) "
        count += "SELECT count(*) FROM n"
        connection = sqlite3.connect(PATH)
        assert connection.execute(count).fetchone() == (1_500_000,)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        rows = count.replace("count(*)", "x")
        assert len(connection.execute(rows).fetchall()) == 1_500_000

        # From now on others run meanwhile. The interpreter's lock is let go in each step only.
        gevent.sleep(0.01)
        turns.clear()
        assert connection.execute(count).fetchone() == (1_500_000,)
        assert len(turns) > 5, turns
        turns.clear()
        assert len(connection.execute(rows).fetchall()) == 1_500_000
        assert len(turns) > 5, turns
        assert connection.execute("SELECT 1").fetchone() == (1,)
        """
    )


def test_slow_statement_that_fails_fails_in_the_same_way_in_a_thread(check: Check) -> None:
    check(
        """
        connection = sqlite3.connect(PATH)
        connection.create_function("slow", 1, lambda seconds: time.sleep(seconds) or 1 / 0)
        for _ in range(2):
            try:
                connection.execute("SELECT slow(0.05)").fetchone()
            except sqlite3.OperationalError as exc:
                assert str(exc) == "user-defined function raised exception", exc
            else:
                raise AssertionError
        connection.close()
        try:
            connection.execute("SELECT slow(0.05)")
        except sqlite3.ProgrammingError as exc:
            assert str(exc) == "Cannot operate on a closed database.", exc
        else:
            raise AssertionError
        """
    )
