"""Nothing fails under Greenroom that passes without it, in the suites of those whose waits it replaces."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.__main__ import unneeded
from tests.peers.suites import SUITES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.nightly
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("name", SUITES)
def test_we_fail_nothing_that_passes_without_us(name: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.peers", name, "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_each_difference_that_is_allowed_has_its_reason() -> None:
    lines = [
        line for line in Path(__file__).with_name("allowed.txt").read_text().splitlines() if line[:1] not in ("", "#")
    ]

    for line in lines:
        suite, test, reason = (part.strip() for part in line.split("|", 2))
        assert suite in SUITES
        assert test
        assert reason, line


def test_an_entry_that_allows_nothing_any_more_is_named() -> None:
    reasons = [("pool.test_*", "counts"), ("wait.test_clock", "sometimes: a busy machine"), ("wait.test_gone", "gone")]

    assert unneeded(reasons, ["pool.test_size"]) == ["wait.test_gone"]
