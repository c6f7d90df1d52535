"""`greenroom tune` on applications whose cost is known."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.conftest import LONG_WAIT_SECONDS, clean_environment

ROOT = Path(__file__).resolve().parents[2]
SHOP = """
import threading
import time

from flask import Flask

app = Flask(__name__)
busy = threading.Lock()


@app.get("/work")
def work():
    until = time.thread_time() + 0.02
    while time.thread_time() < until:
        pass
    return "done"


@app.get("/broken")
def broken():
    raise ValueError("as asked")
"""


def tune(folder: Path, *arguments: str, timeout: float = LONG_WAIT_SECONDS) -> subprocess.CompletedProcess[str]:
    (folder / "shop.py").write_text(SHOP)
    return subprocess.run(
        [sys.executable, "-m", "greenroom", "tune", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=folder,
        env={**clean_environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
    )


def test_settings_are_proposed_with_reasons_and_nothing_is_changed(tmp_path: Path) -> None:
    done = tune(
        tmp_path, "shop:app", "--url", "/work", "--expect", "p99<500ms", "--no-verify", "--cores", "3", "--memory-mb",
        "4000",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    cpu = re.search(r"one request: ([\d.]+) ms CPU", done.stdout)
    assert cpu is not None
    assert 15 < float(cpu[1]) < 200
    assert "there is: 3 cores, 4000 MB" in done.stdout
    assert re.search(r"WEB_CONCURRENCY +3 +\(as it is\) +one for each of 3 cores", done.stdout)
    assert "GREENROOM_CLIENT_PATIENCE_MILLISECONDS=500" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"shop.py", "__pycache__", "instance"}


SERVED = [
    (("shop:app", "--url", "/broken"), "/broken does not answer well even when it is hardly asked (status 500)"),
    (("nowhere:app",), "the application could not be served"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        *(pytest.param(*row, marks=pytest.mark.nightly) for row in SERVED),
        (("shop:app", "--url", "work"), "must be a path of the application"),
        (("shop:app", "--expect", "p99<3"), "which unit?"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = tune(tmp_path, *arguments, "--no-verify")

    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.nightly
def test_work_that_the_cpu_bounds_is_worth_no_change_but_a_cheaper_line(tmp_path: Path) -> None:
    done = tune(tmp_path, "shop:app", "--url", "/work", "--expect", "p99<2s", "--for", "2s", timeout=900)

    assert done.returncode == 0, done.stderr
    assert "Nothing is worth changing" in done.stdout
    assert "make it cheaper" in done.stdout
