import os
import sys
from pathlib import Path

import psutil
import pytest

from greenroom.companion import Companion
from greenroom.errors import CompanionError

READY = 'import sys; print(\'{"environment": {"COLOUR": "green"}}\', flush=True); '
UNTIL_END = "sys.stdin.read()"


def start(code: str, timeout_seconds: float = 30) -> Companion:
    return Companion.start([sys.executable, "-c", code], os.environ, timeout_seconds)


def test_the_environment_it_gives_is_read() -> None:
    companion = start(READY + UNTIL_END)

    assert companion.environment == {"COLOUR": "green"}

    companion.stop()


def test_it_ends_when_the_last_holder_of_the_pipe_is_gone(tmp_path: Path) -> None:
    farewell = tmp_path / "farewell"
    companion = start(READY + UNTIL_END + f"; open({str(farewell)!r}, 'w').close()")

    companion.stop()

    assert farewell.exists()
    assert not psutil.pid_exists(companion.pid)


def test_stopping_twice_is_stopping_once() -> None:
    companion = start(READY + UNTIL_END)
    companion.stop()

    companion.stop()

    assert not psutil.pid_exists(companion.pid)


def test_one_that_will_not_end_is_killed() -> None:
    companion = start(READY + "import time\nwhile True: time.sleep(60)")

    companion.stop(timeout_seconds=0.1)

    assert not psutil.pid_exists(companion.pid)


def test_one_that_fails_is_an_error_that_points_at_its_messages(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CompanionError, match="ended before it was ready; see its messages above"):
        start("import sys; sys.exit('the cellar is locked')")

    assert "the cellar is locked" in capfd.readouterr().err


def test_one_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(CompanionError, match=r"not ready within 0.2 s.*GREENROOM_COMPANION_TIMEOUT_SECONDS"):
        start("import sys; sys.stdin.read()", timeout_seconds=0.2)


@pytest.mark.parametrize("nonsense", ["hello", "[]", "{}", '{"environment": 3}'])
def test_one_that_says_something_else_is_an_error(nonsense: str) -> None:
    with pytest.raises(CompanionError, match="not its environment"):
        start(f"import sys; print({nonsense!r}, flush=True); sys.stdin.read()")
