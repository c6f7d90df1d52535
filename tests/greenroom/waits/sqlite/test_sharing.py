"""Connections of SQLite in threads and greenlets, and what stays as Python has it; in patched processes."""

import subprocess
import sys

from .process import PREPARED, Check


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


def test_connection_needs_no_working_directory(check: Check) -> None:
    """A deployment has deleted it."""
    check(
        """
        import os, tempfile
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
        assert sqlite3.connect(":memory:").execute("SELECT 1").fetchone() == (1,)
        """
    )


def test_callbacks_that_follow_statements_see_none_of_ours_and_stop_none(check: Check) -> None:
    check(
        """
        holder = sqlite3.connect(PATH, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        waits = sqlite3.connect(PATH, timeout=LONG_WAIT_SECONDS, isolation_level=None)
        seen = []
        waits.set_trace_callback(seen.append)

        def judge(action, *args):
            seen.append(action)
            return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_PRAGMA else sqlite3.SQLITE_OK

        waits.set_authorizer(judge)
        gevent.spawn_later(0.2, holder.execute, "COMMIT")
        waits.executemany("INSERT INTO visits VALUES (?, 'x')", [(1,)])
        assert seen.count(sqlite3.SQLITE_INSERT) >= 1 and sqlite3.SQLITE_PRAGMA not in seen, seen
        assert [what for what in seen if type(what) is str][-1:] == ["INSERT INTO visits VALUES (1, 'x')"], seen
        assert not any("busy_timeout" in what for what in seen if type(what) is str), seen
        try:
            waits.execute("PRAGMA user_version")
        except sqlite3.DatabaseError as exc:
            assert str(exc) == "not authorized"
        else:
            raise AssertionError
        waits.set_authorizer(None)
        waits.set_trace_callback(None)
        seen.clear()
        assert waits.execute("PRAGMA user_version").fetchone() == (0,) and not seen
        """
    )


def test_connection_that_is_not_made_or_made_again_is_as_python_has_it(check: Check) -> None:
    check(
        """
        class Unmade(sqlite3.Connection):
            def __init__(self, name):
                pass

        unmade = Unmade(PATH)
        for call in (unmade.cursor, unmade.commit, unmade.close, lambda: unmade.execute("SELECT 1")):
            try:
                call()
            except sqlite3.ProgrammingError as exc:
                assert str(exc) == "Base Connection.__init__ not called.", exc
            else:
                raise AssertionError
        again = sqlite3.connect(":memory:")
        again.__init__(PATH)
        assert again.execute("SELECT count(*) FROM visits").fetchall() == [(0,)]
        for call in (lambda: again.cursor(None), lambda: sqlite3.connect(PATH, timeout="5")):
            try:
                call()
            except TypeError:
                continue
            raise AssertionError
        for endless in (float("inf"), float("nan"), 1e12):  # of which C's milliseconds make none at all
            assert sqlite3.connect(PATH, timeout=endless).execute("SELECT 1").fetchone() == (1,)
        """
    )


def test_statement_takes_few_calls_of_python_s(check: Check) -> None:
    """Each is felt: a page may have 50 statements, which take microseconds each."""
    check(
        """
        calls = []
        first.execute("SELECT 1").fetchone()
        connects = lambda: sqlite3.connect(PATH).close()
        connects()

        def counted(function):
            calls.clear()
            sys.setprofile(lambda frame, event, arg: event == "call" and calls.append(frame.f_code.co_name))
            function()
            sys.setprofile(None)
            return calls

        assert len(counted(lambda: first.execute("SELECT 1").fetchone())) <= 5, calls
        assert len(counted(lambda: first.execute("SELECT 1").fetchall())) <= 7, calls
        assert len(counted(connects)) <= 10, calls
        """
    )
