"""The benchmark of `greenroom tune` beside a search: what is searched, and that it asks what the command does."""

import argparse
from collections.abc import Mapping

import pytest

from benchmarks import tune
from greenroom.tune import commands, model, tuning
from greenroom.tune.model import Proposed


def test_no_cell_asks_the_database_for_more_than_it_allows() -> None:
    cells = list(tune.cells(tune.CASES["database"]))

    assert {model.WORKERS: "1", tune.POOL_SETTING: "20", model.LIMIT: "0"} in cells
    assert all(int(one[model.WORKERS]) * int(one[tune.POOL_SETTING]) <= 20 for one in cells)


@pytest.mark.parametrize("name", tune.CASES)
def test_tune_is_asked_with_the_options_of_the_command(name: str) -> None:
    parser = argparse.ArgumentParser()
    commands.add_to(parser.add_subparsers())
    given = vars(parser.parse_args(["tune", tune.APP]))

    assert set(vars(tune.options_of(tune.CASES[name], "1s"))) == set(given) - {"run"}


@pytest.mark.parametrize(("tuned_rate", "holds"), [(95.0, True), (80.0, False)])
def test_tune_must_reach_nine_tenths_of_the_search(
    tuned_rate: float, holds: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def capacity(options: object, expected: object, settings: Mapping[str, str]) -> float:
        return tuned_rate if settings == {model.WORKERS: "5"} else 25.0 * int(settings[model.WORKERS])

    monkeypatch.setitem(tune.CASES, "cpu", tune.Case("/cpu", "p99<300ms", {model.WORKERS: ("1", "4")}))
    monkeypatch.setattr(tuning, "find_capacity", capacity)
    monkeypatch.setattr(tuning, "tuned", lambda options: [Proposed(model.WORKERS, "1", "5", "")])

    assert tune.compare("cpu", "1s", 1) is holds
    assert f"tune   WEB_CONCURRENCY=5: {tuned_rate:g}/s" in capsys.readouterr().out
