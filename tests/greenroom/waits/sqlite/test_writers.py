"""Writers that wait for SQLite's lock let others run and come one after the other; in patched processes."""

import sys

import pytest

from .process import Check


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


def test_timeout_that_a_script_or_a_commented_pragma_sets_counts(check: Check) -> None:
    check(
        """
        for sets in ("executescript", "execute"):
            waits = sqlite3.connect(PATH, timeout=LONG_WAIT_SECONDS)
            getattr(waits, sets)("/* soon */ -- enough\\n PRAGMA busy_timeout = 100")
            holder = sqlite3.connect(PATH, isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            assert 0.1 <= locked(waits.execute, "INSERT INTO visits VALUES (1, 'x')") < 2
            assert waits.execute("PRAGMA busy_timeout").fetchone() == (100,)
            holder.execute("ROLLBACK")
        assert longest_turn() < 0.25, longest_turn()
        """
    )


def test_error_that_is_not_of_sqlite_itself_stays_what_it_is(check: Check) -> None:
    check(
        """
        def refuse(value):
            raise sqlite3.OperationalError("the application's own")

        class Odd:
            pass

        sqlite3.register_adapter(Odd, refuse)
        sqlite3.register_converter("odd", refuse)
        odd = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES)
        odd.execute("CREATE TABLE visits (number odd)")
        odd.execute("INSERT INTO visits VALUES (1)")
        odd.commit()

        def said(sql, *values):
            try:
                odd.execute(sql, values).fetchall()
            except sqlite3.OperationalError as exc:
                return str(exc)

        assert said("SELECT number FROM visits") == "the application's own"
        assert said("INSERT INTO visits VALUES (?)", Odd()) == "the application's own"
        assert said("SELECT CAST(x'ff' AS TEXT)").startswith("Could not decode to UTF-8 column")
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
        from greenroom.waits.sqlite_transactions import waits_for
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
        assert waits_for(waiter) == said, waits_for(waiter)
        holder.execute("COMMIT")
        gevent.joinall(waits, timeout=LONG_WAIT_SECONDS, raise_error=True)
        assert waits_for(waiter) == "visits.sqlite"
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


def test_readers_go_on_while_a_written_row_is_fetched_and_its_transaction_waits_for_them(check: Check) -> None:
    """Django's way: each `create()` is an INSERT with RETURNING that commits itself."""
    check(
        """
        for fetch in ("fetchone", "fetchmany", "fetchall"):
            reader = sqlite3.connect(PATH, isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM visits").fetchall()
            gevent.spawn_later(0.3, reader.execute, "COMMIT")
            writer = sqlite3.connect(PATH, isolation_level=None, timeout=LONG_WAIT_SECONDS)
            row = getattr(writer.execute("INSERT INTO visits VALUES (1, 'x') RETURNING number"), fetch)()
            assert row in ((1,), [(1,)]), row
            assert writer.execute("PRAGMA busy_timeout").fetchone() == (LONG_WAIT_SECONDS * 1000,)
        assert first.execute("SELECT count(*) FROM visits").fetchall() == [(3,)]
        assert longest_turn() < 0.25, longest_turn()
        """
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Connection.autocommit came with Python 3.12")
def test_switching_to_autocommit_commits_with_the_connection_s_patience(check: Check) -> None:
    check(
        """
        reader = sqlite3.connect(PATH, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM visits").fetchall()
        gevent.spawn_later(0.3, reader.execute, "COMMIT")
        writer = sqlite3.connect(PATH, autocommit=False, timeout=LONG_WAIT_SECONDS)
        writer.execute("INSERT INTO visits VALUES (1, 'x')")
        writer.autocommit = True
        assert not writer.in_transaction and writer.autocommit is True
        assert first.execute("SELECT count(*) FROM visits").fetchall() == [(1,)]
        assert longest_turn() < 0.25, longest_turn()
        """
    )


def test_connection_that_is_dropped_within_its_transaction_is_forgotten(check: Check) -> None:
    check(
        """
        from greenroom.waits.sqlite_transactions import TRANSACTIONS
        import gc, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(20):
            dropped = sqlite3.connect(":memory:")
            dropped.execute("CREATE TABLE t (a)")
            dropped.execute("INSERT INTO t VALUES (1)")
        assert len(TRANSACTIONS) >= 1
        del dropped
        gc.collect()  # CPython's refer to themselves
        assert not TRANSACTIONS
        """
    )
