import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greenroom.ops.log_file import LogFile, handler


@pytest.fixture
def say(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    opened = handler(str(tmp_path / "error.log"))

    def emit(text: str) -> None:
        opened.handle(logging.LogRecord("ops", logging.INFO, "", 0, text, (), None))

    yield emit
    opened.close()


def test_lines_are_appended_to_the_error_log(say: Callable[[str], None], tmp_path: Path) -> None:
    with (tmp_path / "error.log").open("a") as gunicorns:
        say("one")
        gunicorns.write("two\n")

    say("three")
    assert (tmp_path / "error.log").read_text().splitlines() == ["one", "two", "three"]


def test_a_file_that_was_moved_away_is_left_for_the_new_one(say: Callable[[str], None], tmp_path: Path) -> None:
    say("one")
    (tmp_path / "error.log").rename(tmp_path / "error.log.1")
    say("two")  # gunicorn makes the new one, under its own rights
    assert not (tmp_path / "error.log").exists()

    (tmp_path / "error.log").touch()
    say("three")

    assert (tmp_path / "error.log.1").read_text().splitlines() == ["one", "two"]
    assert (tmp_path / "error.log").read_text().splitlines() == ["three"]


@pytest.mark.parametrize("name", ["", "/dev/null/error.log"])
def test_without_a_file_lines_go_to_standard_error(name: str) -> None:
    opened = handler(name)

    assert not isinstance(opened, LogFile)
    assert isinstance(opened, logging.StreamHandler)
