"""The end of a request, and its effect on each wait of the standard library, all at once in one patched process."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT = "a TimeoutError"
# The outcome of each wait: an error, or its return value.
ENDS: dict[str, Any] = {
    "time.sleep": TIMEOUT,
    "socket.recv": ["late"],
    "socket.sendall with a timeout": TIMEOUT,
    "a_socket_that_was_ended_is_used_again": [["TimeoutError", "BrokenPipeError", ""]],
    "a_file_over_a_socket_that_was_ended": [["TimeoutError", "OSError"]],
    "a_datagram_with_a_timeout": [["TimeoutError", True]],
    "a_listener_that_was_ended_still_listens": ["TimeoutError"],
    "a_socket_at_which_another_greenlet_waits": [["TimeoutError", "b'y'"]],
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
    "Queue.get": TIMEOUT,
    "Queue.get with a timeout": "Empty",
    "LifoQueue.get": TIMEOUT,
    "PriorityQueue.get": TIMEOUT,
    "SimpleQueue.get": TIMEOUT,
    "Queue_put": TIMEOUT,
    "subprocess.run": TIMEOUT,
    "subprocess.run with a timeout": "TimeoutExpired",
    "subprocess.check_output": TIMEOUT,
    "Popen_wait": TIMEOUT,
    "Popen_communicate": TIMEOUT,
    "Popen_stdout_read": [""],
    "own_timeout_around_subprocess_run": TIMEOUT,
    "own_timeout_around_waitpid": TIMEOUT,
    "a_process_started_when_the_budget_is_spent": [-9],
    "select.select": [1],
    "select.select with a timeout": [1],
    "poll": [1],
    "poll_again_and_again": ["late"],
    "selector": [1],
    "selector_with_a_timeout": [1],
    "epoll": [1],
    "epoll_with_a_timeout": [1],
    "Future.result": TIMEOUT,
    "Future.result with a timeout": TIMEOUT,
    "Thread_join": TIMEOUT,
    "Thread_join_with_a_timeout": [True],
    "a_thread_of_the_view": [True],
    "an_executor_of_the_view": [[True, True]],
    "a job of a shared executor": TIMEOUT,
    "a_timer": [[True]],
    "thread_started_when_the_budget_is_spent": [True],
    "clean_up_in_finally": [["late", "x\n", "lock", False]],
    "gevent.spawn": [None],
    "a pool of greenlets": [None],
    "gevent.sleep": [None],
    "a_lock_that_is_free": [[False, False, True]],
    "a_log_line_written_when_the_budget_is_spent": [1],
}
WAIT_AGAIN = {"wait_on_an_event_that_is_retried", "Condition_over_a_lock"}
# Far below what any of them would take, far above what a busy machine adds.
MOST_SECONDS = 8.0


@functools.cache
def outcomes() -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "tests.greenroom.waits.ended"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize("name", ENDS)
def test_wait_ends_as_its_caller_expects_or_goes_on(name: str) -> None:
    found, expected = outcomes()[name], ENDS[name]

    assert found is not None, "it did not end"
    if expected == TIMEOUT:
        assert found.get("is_timeout"), found
    elif isinstance(expected, str):
        assert found.get("raised") == expected, found
    else:
        assert found.get("returned") == expected[0], found
    assert found["seconds"] < MOST_SECONDS, found
    assert not found["refusals"] or name in WAIT_AGAIN, "it ended with the grace, and not with the budget"


def test_each_case_is_judged() -> None:
    assert set(outcomes()) == set(ENDS)


def test_functions_that_are_replaced_can_be_pickled() -> None:
    """`Process(target=time.sleep)` with multiprocessing's spawn."""
    code = """
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings())
import fcntl, os, pickle, select, socket, sqlite3, time
for function in (
    time.sleep, os.read, os.write, os.fdopen, os.close, os.system, os.waitpid, os.wait, os.waitid, select.select,
    socket.getaddrinfo, socket.create_connection, fcntl.flock, fcntl.lockf, sqlite3.connect,
):
    assert pickle.loads(pickle.dumps(function)) is function, function
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stderr
