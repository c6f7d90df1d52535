"""Each wait of the standard library, bounded by a budget, all at once in one patched process."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT = "a TimeoutError"
# What each wait ends with: an error, or what it returns.
ENDS: dict[str, Any] = {
    "time.sleep": TIMEOUT,
    "socket.recv": TIMEOUT,
    "socket.accept": TIMEOUT,
    "socket.sendall": TIMEOUT,
    "TLS_handshake": TIMEOUT,
    "Lock.acquire": TIMEOUT,
    "Lock.acquire with a timeout": [False],
    "with lock": TIMEOUT,
    "RLock.acquire": TIMEOUT,
    "Semaphore.acquire": TIMEOUT,
    "Barrier.wait": TIMEOUT,
    "Condition_wait": TIMEOUT,
    "Condition_over_a_lock": TIMEOUT,
    "Event.wait": TIMEOUT,
    "Event.wait with a timeout": [False],
    "wait_on_an_event_that_is_retried": TIMEOUT,
    "Queue.get": "Empty",
    "Queue.get with a timeout": "Empty",
    "LifoQueue.get": "Empty",
    "PriorityQueue.get": "Empty",
    "SimpleQueue.get": "Empty",
    "Queue_put": "Full",
    "subprocess.run": "TimeoutExpired",
    "subprocess.check_output": "TimeoutExpired",
    "Popen_wait": "TimeoutExpired",
    "Popen_communicate": "TimeoutExpired",
    "Popen_stdout_read": TIMEOUT,
    "a_process_started_when_the_budget_is_spent": TIMEOUT,
    "select.select": TIMEOUT,
    "select.select with a timeout": [[[], [], []]],
    "poll": [[]],
    "selector": TIMEOUT,
    "Future.result": TIMEOUT,
    "Future.result with a timeout": TIMEOUT,
    "Thread_join": TIMEOUT,
    "Thread_join_with_a_timeout": [True],
    "a_thread_of_the_view": [["BudgetSpent"]],
    "an_executor_of_the_view": [["BudgetSpent"] * 3],
    "a job of a shared executor": TIMEOUT,
    "thread_of_a_shared_executor_afterwards": [["BudgetSpent", True]],
    "thread_started_when_the_budget_is_spent": [[None]],
    "gevent.spawn": TIMEOUT,
    "a pool of greenlets": TIMEOUT,
    "gevent.sleep": TIMEOUT,
    "a_lock_that_is_free": [[False, False, True]],
    "a_log_line_written_when_the_budget_is_spent": [1],
}
# Far below what any of them would take, far above what a busy machine adds.
MOST_SECONDS = 8.0


@functools.cache
def outcomes() -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "tests.greenroom.waits.primitives_cases"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize("name", ENDS)
def test_wait_ends_with_its_ordinary_timeout(name: str) -> None:
    found, expected = outcomes()[name], ENDS[name]

    assert found is not None, "it did not end"
    if expected == TIMEOUT:
        assert found.get("is_timeout"), found
    elif isinstance(expected, str):
        assert found.get("raised") == expected, found
    else:
        assert found.get("returned") == expected[0], found
    assert found["seconds"] < MOST_SECONDS, found


def test_each_case_is_judged() -> None:
    assert set(outcomes()) == set(ENDS)
