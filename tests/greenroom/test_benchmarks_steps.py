"""benchmarks/steps.py and nightly.py: steps of a request beside an earlier result, and what is kept."""

import json
from pathlib import Path

import pytest

from benchmarks import nightly, steps
from benchmarks.servers import ServerFailed


def test_more_steps_or_switches_are_dearer_and_chance_is_not() -> None:
    before = {"hello": {"steps": 1000.0, "switches": 2.0}}

    assert (
        steps.worse(before, {"hello": {"steps": 1010.0, "switches": 2.0}, "new": {"steps": 9.0, "switches": 9.0}}) == []
    )
    assert steps.worse(before, {"hello": {"steps": 1100.0, "switches": 3.0}}) == [
        "hello: 1,000 steps before, 1,100 now: dearer",
        "hello: 2 switches before, 3 now: dearer",
    ]


def test_result_of_another_python_is_compared_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text(json.dumps({"python": "2.7", "requests": {"hello": {"steps": 1}}}))

    assert steps.read(tmp_path / "steps.json") == {}


def test_file_that_is_no_result_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text("[]")

    with pytest.raises(ServerFailed, match="is no result of"):
        steps.read(tmp_path / "steps.json")


def test_first_result_is_kept_until_another_is_accepted(tmp_path: Path) -> None:
    new, kept = tmp_path / "new.json", tmp_path / "kept.json"
    beside: list[Path | None] = []

    def look(text: str, code: int, *, accepts: bool = False) -> str:
        def write(last: Path | None) -> int:
            beside.append(last)
            new.write_text(text)
            return code

        assert nightly.looked(write, new, kept, accepts=accepts) == code
        return kept.read_text() if kept.exists() else ""

    assert look("failed", 1) == ""
    assert look("first", 0) == "first"
    assert look("dearer", 1) == "first"
    assert look("same", 0) == "first"
    assert look("accepted", 0, accepts=True) == "accepted"
    assert beside == [None, None, kept, kept, None]


@pytest.mark.live
def test_steps_of_a_request_are_counted_in_a_process_of_their_own() -> None:
    found = {insight: steps.counted("hello", insight) for insight in (steps.WITH, steps.WITHOUT)}

    assert 0 < found[steps.WITHOUT]["steps"] < found[steps.WITH]["steps"] < 1.5 * found[steps.WITHOUT]["steps"]
    assert found[steps.WITH]["switches"] == 2  # into the request, and out of it
