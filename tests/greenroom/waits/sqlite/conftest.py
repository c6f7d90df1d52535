"""A way to run code in a patched process with a database of its own."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from .process import PREPARED, Check


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(code: str) -> None:
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", PREPARED + textwrap.dedent(code), str(tmp_path / "visits.sqlite")],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert result.returncode == 0, result.stderr

    return run
