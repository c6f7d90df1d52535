"""Code of a test in a patched process of its own."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


PREPARED = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings())
import queue, threading, time
import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from greenroom import deadline
from greenroom.errors import BudgetSpent
from greenroom.waits.threads import start_thread

real_sleep = monkey.get_original("time", "sleep")

def in_thread(function):
    "Call it in a real thread, and return a list that has what it returns as soon as it does."
    got = []
    start_thread(lambda: got.append(function()), ())
    return got

def wait_until(condition):
    with gevent.Timeout(30):
        while not condition():
            gevent.sleep(0.001)
"""


def run(code: str, *, prepared: str = PREPARED) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", prepared + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=90,
    )


def check(code: str, *, prepared: str = PREPARED) -> None:
    result = run(code, prepared=prepared)
    assert result.returncode == 0, result.stdout + result.stderr
