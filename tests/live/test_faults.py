"""The machine runs out of descriptors, disk or memory, or loses /proc: whatever runs periodically gets over it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from .conftest import Server, free_port, wait_until

FAULTS = Path(__file__).parent / "apps" / "faults"
# Each job comes round several times.
SECONDS = 4.0
# In so long: each job may tell of it, but not each time.
MOST_LINES = 60


@pytest.mark.parametrize("fault", ["EMFILE", "ENFILE", "ENOSPC", "ENOMEM", "ENOENT"])
def test_periodic_jobs_of_all_processes_survive(start: Callable[..., Server], tmp_path: Path, fault: str) -> None:
    flag, ops = tmp_path / "fault", free_port()
    server = start(
        {
            "WSGI_APP": "tests.live.apps.processes:app",
            "FORKS_FOLDER": str(tmp_path),
            "WEB_CONCURRENCY": "2",
            "GREENROOM_COMPANION": "no",
            "GREENROOM_OPS_BIND": f"127.0.0.1:{ops}",
            "GREENROOM_WORKER_MEMORY_MB": "900",
            "GREENROOM_RECORDINGS_PATH": str(tmp_path / "recordings"),
            "GREENROOM_STALL_THRESHOLD_MILLISECONDS": "20",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(FAULTS), os.environ.get("PYTHONPATH")])),
            "FAULTS_FILE": str(flag),
        }
    ).wait_ready()
    wait_until(lambda: answers(f"http://127.0.0.1:{ops}/metrics"), "the ops page is there")
    processes = {server.process.pid, *(child.pid for child in psutil.Process(server.process.pid).children())}
    before = len(server.text().splitlines())

    flag.write_text(fault)
    until = time.monotonic() + SECONDS
    served = 0
    while time.monotonic() < until:
        assert requests.get(server.url + "/readyz", timeout=10).text == "ready"
        served += 1
        time.sleep(0.05)
    flag.write_text("")

    assert served > 10
    wait_until(lambda: answers(f"http://127.0.0.1:{ops}/metrics"), "the ops page is there again")
    assert requests.get(server.url + "/readyz", timeout=10).text == "ready"
    assert {pid for pid in processes if psutil.pid_exists(pid)} == processes
    said = server.text().splitlines()[before:]
    assert len(said) < MOST_LINES, said
    assert not [line for line in said if "Traceback" in line], "\n".join(said)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False
