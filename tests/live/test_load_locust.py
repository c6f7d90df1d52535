"""The locustfile of `greenroom load`: Locust's own processes ask the same, and their results come back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from greenroom.load.running import run as run_load
from greenroom.load.units import LoadError
from tests.live.conftest import LONG_WAIT_SECONDS
from tests.live.synthetic import synthetic
from tests.live.test_load_requests import options


def test_locust_asks_the_same_with_two_processes_and_its_results_come_back(tmp_path: Path) -> None:
    file, saved = tmp_path / "locustfile.py", tmp_path / "result.json"
    with synthetic() as address:
        origin = f"http://{address}"
        code = run_load(
            options(
                f"{origin}/fixed?ms=5", "--rate", "20/s for 3s then 40/s for 3s", "--also", "1 POST /echo hello",
                "--locustfile", str(file),
            )
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "locust", "-f", str(file), "--headless", "--host", origin, "--processes", "2",
             "--csv", str(tmp_path / "results"), "--only-summary"],
            capture_output=True, text=True, timeout=LONG_WAIT_SECONDS, cwd=tmp_path,
        )  # fmt: skip

    assert code == 0
    assert done.returncode == 0, done.stderr
    code = run_load(
        options("--locust-results", str(tmp_path / "results_stats.csv"), "--json", str(saved), "--expect", "errors<1%")
    )
    said = json.loads(saved.read_text())
    assert code == 0
    assert set(said["routes"]) == {"GET /fixed", "POST /echo"}
    # 180 are due; Locust starts its users one after the other, and stops them when the shape ends.
    assert 60 < said["requests"] <= 240
    assert said["errors"] == 0
    assert said["p50_ms"] >= 1
    assert said["expectations"][0]["held"]


def test_what_a_locustfile_cannot_ask_is_said(tmp_path: Path) -> None:
    with synthetic() as address, pytest.raises(LoadError, match="--locustfile needs --rate"):
        run_load(options(f"http://{address}/", "--users", "5", "--locustfile", str(tmp_path / "l.py")))


def test_other_csv_is_no_result_of_locusts(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2\n")

    with pytest.raises(LoadError, match="is no ..._stats.csv of Locust's: 'Name' is missing"):
        run_load(options("--locust-results", str(file)))
