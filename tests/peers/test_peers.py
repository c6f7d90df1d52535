"""Nothing fails under Greenroom that passes without it, in the suites of those whose waits it replaces."""

import json
import os
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


def test_what_hangs_as_a_module_is_torn_down_ends_the_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(
        "import time, unittest\n"
        "def tearDownModule():\n    time.sleep(3600) if tests else None\n"
        "tests = []\n"
        "class Test(unittest.TestCase):\n    def test(self):\n        tests.append(1)\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "tests" / "peers" / "inside.py"), "gevent", str(out), "unittest", "hanging"]
    environ = os.environ | {"PYTHONPATH": str(tmp_path), "PEERS_LONGEST_SECONDS": "2"}

    ended = [subprocess.run(command, env=environ, capture_output=True, timeout=50).returncode for _ in range(2)]

    assert ended == [3, 0]
    assert {line["test"]: line["outcome"] for line in map(json.loads, out.read_text().splitlines())} == {
        "hanging.Test.test": "passed",
        "after hanging.Test.test": "hung",
    }
