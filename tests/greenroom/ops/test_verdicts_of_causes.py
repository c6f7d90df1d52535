"""Rules for causes as a whole: each bears rows that say little, and one that fails hides no other."""

from typing import Any

import pytest

from greenroom.insight.facts import waiting_for
from greenroom.ops import verdicts
from greenroom.ops.verdicts import pools

from .fakes import NOW, moment, seen, shown, snapshot
from .troubles import AT, failing, failure, verdict


def test_every_rule_bears_a_moment_with_rows_that_say_little() -> None:
    said = snapshot()
    said["waiting"] = waiting_for([("lock", "lock", 9.0)] * 9)
    bare = {"name": "X", "line": "", "route": "other", "message": "", "root": "", "number": "", "library": ""}
    said["failures"] = [{**bare, "count": 1, "first_at": AT, "last_at": AT, "last_since": NOW}]
    said["holders"] = [{"count": 9, "longest_seconds": 9.0}]

    assert shown(seen(said=said))["verdict"]["sentence"]
    assert moment(seen(said=said)).sums["failed"] == {}


def test_large_gains_are_said_in_whole_numbers() -> None:
    assert [pools.times(ratio) for ratio in (1.54, 9.9, 12.4, 131.0, 1778.0)] == ["1.5", "9.9", "12", "130", "1800"]


def test_a_rule_that_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(moment: Any, seen: Any) -> Any:
        raise KeyError("told")

    monkeypatch.setattr(verdicts, "RULES", (broken, *verdicts.RULES))
    logged: list[str] = []
    monkeypatch.setattr(verdicts.logger, "exception", logged.append)

    found = [verdict(seen(said=failing(failure()))) for _ in range(2)]

    assert [one["cause"] for one in found] == ["errors", "errors"]
    assert logged == ["a rule for verdicts failed"]
