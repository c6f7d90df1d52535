"""Code of a program that SQLite calls while one of its calls is in a thread: it finds what it finds in its own."""

from .process import Check


def test_rows_of_executemany_are_made_in_the_caller_s_own_greenlet(check: Check) -> None:
    check(
        """
        import contextvars, threading
        local, variable = threading.local(), contextvars.ContextVar("variable")
        local.name, mine = "x", threading.get_ident()
        variable.set("y")
        other = sqlite3.connect(":memory:")

        def rows():
            assert threading.get_ident() == mine
            yield 1, local.name
            gevent.sleep(0.02)
            yield other.execute("SELECT 2").fetchone() + (variable.get(),)
            yield first.execute("SELECT 3, count(*) FROM visits").fetchone()
            for number in range(4, 2000):
                yield number, "z"

        assert first.executemany("INSERT INTO visits VALUES (?, ?)", rows()).rowcount == 1999
        found = first.execute("SELECT * FROM visits ORDER BY number").fetchall()
        assert found[:2] == [(1, "x"), (2, "y")] and [number for number, _ in found] == list(range(1, 2000)), found[:3]
        first.commit()
        other.execute("CREATE TABLE copies (number, name)")
        other.executemany("INSERT INTO copies VALUES (?, ?)", first.execute("SELECT * FROM visits"))
        assert other.execute("SELECT * FROM copies ORDER BY number").fetchall() == found
        assert not first._turn.locked()
        """
    )


def test_rows_that_end_with_an_error_or_with_their_greenlet_end_the_call(check: Check) -> None:
    check(
        """
        def fails():
            yield 1, "x"
            raise LookupError("no more")

        connection = sqlite3.connect(PATH)
        try:
            connection.executemany("INSERT INTO visits VALUES (?, ?)", fails())
        except LookupError as exc:
            assert str(exc) == "no more"
        else:
            raise AssertionError
        assert connection.in_transaction and connection.execute("SELECT * FROM visits").fetchall() == [(1, "x")]
        connection.rollback()

        holder = sqlite3.connect(PATH, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        for rows in (((n, "x") for n in range(3)), (gevent.sleep(0.001) or (n, "x") for n in range(10 ** 6))):
            waits = gevent.spawn(connection.executemany, "INSERT INTO visits VALUES (?, ?)", rows)
            while not connection._away_in:
                gevent.sleep(0.001)
            gevent.sleep(0.02)
            waits.kill(timeout=LONG_WAIT_SECONDS)
            if holder.in_transaction:
                holder.execute("COMMIT")
            connection.rollback()
            assert connection.execute("SELECT count(*) FROM visits").fetchone() == (0,)
        for wrong in (7, None):
            try:
                connection.executemany("INSERT INTO visits VALUES (?, ?)", wrong)
            except TypeError as exc:
                assert "is not iterable" in str(exc), exc
            else:
                raise AssertionError
        """
    )


def test_functions_use_the_caller_s_other_connections(check: Check) -> None:
    check(
        """
        from greenroom.waits.sqlite import slow
        other = sqlite3.connect(":memory:")
        connection = sqlite3.connect(PATH)
        connection.create_function("doubled", 1, lambda n: other.execute("SELECT ? * 2", (n,)).fetchone()[0])
        slow.took("SELECT doubled(21)", 1)
        assert connection.execute("SELECT doubled(21)").fetchone() == (42,)
        connection.executemany("INSERT INTO visits VALUES (doubled(?), 'x')", [(1,), (2,)])
        assert connection.execute("SELECT number FROM visits").fetchall() == [(2,), (4,)]
        """
    )


def test_progress_handler_sees_none_of_ours_and_an_interrupted_call_keeps_the_timeout(check: Check) -> None:
    check(
        """
        seen = []
        holder = sqlite3.connect(PATH, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        waits = sqlite3.connect(PATH, timeout=LONG_WAIT_SECONDS, isolation_level=None)
        waits.set_progress_handler(lambda: seen.append(1) or 1, 1)
        try:
            waits.execute("INSERT INTO visits VALUES (1, 'x')")
        except sqlite3.OperationalError as exc:
            assert str(exc) == "interrupted", exc
        else:
            raise AssertionError
        waits.set_progress_handler(None, 1)
        assert waits.execute("PRAGMA busy_timeout").fetchone() == (LONG_WAIT_SECONDS * 1000,)
        waits.execute("SELECT * FROM visits").fetchall()
        waits.set_progress_handler(lambda: seen.append(1) and 0, 1)
        gevent.spawn_later(0.2, holder.execute, "COMMIT")
        seen.clear()
        waits.execute("INSERT INTO visits VALUES (1, 'x')")
        in_a_wait = len(seen)
        seen.clear()
        waits.execute("INSERT INTO visits VALUES (1, 'x')")
        assert seen and in_a_wait <= 2 * len(seen), (in_a_wait, len(seen))  # made twice, and nothing else
        """
    )


def test_commits_of_python_s_own_do_not_ask_a_class_for_its_own(check: Check) -> None:
    check(
        """
        class Own(sqlite3.Connection):
            def commit(self):
                raise AssertionError("Python's does not call it")

            rollback = commit

        own = sqlite3.connect(PATH, factory=Own)
        with own:
            own.execute("INSERT INTO visits VALUES (1, 'x')")
        try:
            with own:
                own.execute("INSERT INTO visits VALUES (2, 'x')")
                raise LookupError
        except LookupError:
            pass
        own.execute("INSERT INTO visits VALUES (3, 'x')")
        own.isolation_level = None
        assert own.execute("SELECT number FROM visits").fetchall() == [(1,), (3,)]
        """
    )
