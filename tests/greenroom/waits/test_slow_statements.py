from greenroom.waits.slow_statements import SlowStatements


def test_statement_is_known_from_when_it_was_slow_until_it_is_quick() -> None:
    slow = SlowStatements(slow_seconds=0.01)

    slow.took("SELECT a", 0.009)
    assert "SELECT a" not in slow
    slow.took("SELECT a", 0.01)
    assert "SELECT a" in slow
    slow.took("SELECT a", 0.006)  # nearly as long
    assert "SELECT a" in slow
    slow.took("SELECT a", 0.001)
    assert "SELECT a" not in slow


def test_those_that_were_slow_longest_ago_are_forgotten() -> None:
    slow = SlowStatements(slow_seconds=0.01, most=2)

    for statement in ("a", "b", "a", "c"):
        slow.took(statement, 1.0)

    assert [statement in slow for statement in "abc"] == [True, False, True]
