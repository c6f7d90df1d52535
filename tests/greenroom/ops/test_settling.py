"""Verdicts wait until they are sure, and do not come and go with each second."""

from typing import Any

from greenroom.ops.settling import STAYS_SECONDS, SURE_SECONDS, Settling


def said(settling: Settling, now: float, *found: tuple[str, str]) -> list[str]:
    """The causes that are told of a view with these findings."""
    rows = [{"level": level, "cause": cause, "sentence": cause, "do": ""} for level, cause in found]
    rows = rows or [{"level": "ok", "cause": "healthy", "sentence": "Healthy.", "do": ""}]
    view: Any = {
        "verdict": {**rows[0], "at": now, "others": rows[1:]},
        "total": {"requests_rate": 0.0, "p95": None},
    }
    verdict: Any = settling.settle(view, now)
    assert verdict["at"] == now
    return [verdict["cause"], *(one["cause"] for one in verdict["others"])]


def test_an_effect_is_told_when_its_cause_could_be_known() -> None:
    settling = Settling()

    assert said(settling, 0.0, ("bad", "upstream"), ("ok", "starting")) == ["healthy", "starting"]
    assert said(settling, SURE_SECONDS - 0.5, ("bad", "upstream")) == ["healthy"]
    assert said(settling, SURE_SECONDS, ("bad", "database_refuses")) == ["database_refuses"]
    assert said(settling, SURE_SECONDS + 1.0, ("bad", "upstream")) == ["upstream"]


def test_that_somebody_answers_nobody_is_told_when_it_is_sure() -> None:
    settling = Settling()

    assert said(settling, 0.0, ("bad", "database_silent")) == ["healthy"]
    assert said(settling, 2.0, ("bad", "database_connections")) == ["database_connections"]
    assert said(settling, 2.5, ("bad", "database_silent")) == ["healthy"]
    assert said(settling, SURE_SECONDS, ("bad", "database_silent")) == ["database_silent"]


def test_a_fact_is_told_at_once() -> None:
    settling = Settling()

    assert said(settling, 0.0, ("bad", "blocked"), ("watch", "errors"), ("watch", "takes_long")) == [
        "blocked",
        "errors",
    ]


def test_a_wait_that_comes_in_waves_is_one_verdict() -> None:
    settling = Settling()
    for second in range(4):
        said(settling, float(second), ("bad", "upstream"))

    assert said(settling, 4.0) == ["upstream"]
    assert said(settling, 5.0, ("watch", "errors")) == ["upstream", "errors"]
    assert said(settling, 6.0, ("bad", "upstream")) == ["upstream"]
    assert said(settling, 6.0 + STAYS_SECONDS + 0.1) == ["healthy"]


def test_what_is_explained_by_now_does_not_stay() -> None:
    settling = Settling()
    for second in range(4):
        said(settling, float(second), ("bad", "upstream"))

    assert said(settling, 4.0, ("bad", "upstream_refuses")) == ["upstream_refuses"]


def test_the_worst_of_a_moment_ago_stays() -> None:
    settling = Settling()
    for second in range(4):
        said(settling, float(second), ("bad", "held"))

    assert level_of(settling, 4.0, "watch") == "bad"
    assert level_of(settling, 5.0, "bad") == "bad"
    assert level_of(settling, 5.0 + STAYS_SECONDS, "watch") == "bad"
    assert level_of(settling, 5.1 + STAYS_SECONDS, "watch") == "watch"


def level_of(settling: Settling, now: float, level: str) -> str:
    row = {"level": level, "cause": "held", "sentence": "held", "do": "", "at": now, "others": []}
    view: Any = {"verdict": row, "total": {"requests_rate": 0.0, "p95": None}}
    verdict: Any = settling.settle(view, now)
    return str(verdict["level"])
