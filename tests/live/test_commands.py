"""`flask ...` in processes of its own, with no server up: each starts the embedded database or finds it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devdb.server import EmbeddedPostgres
from tests.support import PASSWORD

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]
LONG_WAIT = 90.0


@pytest.fixture(scope="module")
def instance() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="boards-test-"))
    yield base
    shutil.rmtree(base)


def flask(instance: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flask", *arguments],
        cwd=ROOT,
        env={**os.environ, "INSTANCE_PATH": str(instance), **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_commands_at_once_share_a_new_database_and_stop_it_after_them(instance: Path) -> None:
    commands = [flask(instance, "user", "create", f"{name}@example.org", "--password-stdin") for name in ("ann", "bob")]

    for name, command in zip(("ann", "bob"), commands, strict=True):
        output, errors = command.communicate(PASSWORD + "\n", timeout=LONG_WAIT)
        assert (command.returncode, output) == (0, f"created {name}@example.org\n"), errors

    assert not EmbeddedPostgres(instance / "postgres").is_alive()


def test_next_command_finds_what_was_saved_and_leaves_the_database_to_its_holder(instance: Path) -> None:
    postgres = EmbeddedPostgres(instance / "postgres")
    postgres.start()
    create = flask(instance, "user", "create", "cid@example.org", "--password-stdin")
    assert create.communicate(PASSWORD + "\n", timeout=LONG_WAIT)[0] == "created cid@example.org\n"

    output, errors = (token := flask(instance, "token", "create", "cid@example.org")).communicate(timeout=LONG_WAIT)

    assert token.returncode == 0, errors
    assert output.startswith("gr_")
    assert output.count("\n") == 1
    assert postgres.is_alive()
    postgres.stop()


def test_wrong_settings_are_listed_without_a_traceback(instance: Path) -> None:
    command = flask(instance, "token", "create", "ann@example.org", MAIL_PORT="0", HISTORY_DAYS="never")

    output, errors = command.communicate(timeout=LONG_WAIT)

    assert (command.returncode, output) == (2, "")
    assert "  - MAIL_PORT: " in errors
    assert "  - HISTORY_DAYS: " in errors
    assert "Traceback" not in errors


def test_embedded_database_that_cannot_start_is_a_sentence(instance: Path) -> None:
    (instance / "file").write_text("in the way")
    command = flask(instance, "token", "create", "ann@example.org", INSTANCE_PATH=str(instance / "file"))

    output, errors = command.communicate(timeout=LONG_WAIT)

    assert (command.returncode, output) == (1, "")
    assert "Set DATABASE_URL to a PostgreSQL of your own" in errors
    assert "Traceback" not in errors
