"""What a wait is ended in, and what it waits for."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from greenroom import deadline
from greenroom.in_flight import CURRENT

BUDGET_SECONDS = 1.0
LATER_SECONDS = 2.5
NEVER_SECONDS = 60.0
Case = Callable[[], Any]
cases: dict[str, Case] = {}


def case(function: Case) -> Case:
    cases[function.__name__] = function
    return function


def outside(function: Case) -> Any:
    """As if no request ran it."""
    token = CURRENT.set(None)
    try:
        return function()
    finally:
        CURRENT.reset(token)


def held_by_other(lock: Any) -> Any:
    outside(lambda: threading.Thread(target=lock.acquire).start())
    return lock


def child(**pipes: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "20"], **pipes)


def ended(process: subprocess.Popen[bytes], wait: Callable[[], Any]) -> Any:
    try:
        return wait()
    finally:
        process.kill()


def late_socket(timeout: float | None = None) -> socket.socket:
    """Something comes when the budget is spent already."""
    near, far = socket.socketpair()
    near.settimeout(timeout)

    def send() -> None:
        with far, suppress(BrokenPipeError):
            time.sleep(LATER_SECONDS)
            far.sendall(b"late")

    outside(threading.Thread(target=send).start)
    return near


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as exc:
        return "TimeoutError" if isinstance(exc, TimeoutError) else type(exc).__name__
    return "none"


def spend() -> None:
    try:
        time.sleep(NEVER_SECONDS)
    except TimeoutError:
        pass


def outcome(function: Case) -> dict[str, Any]:
    began = time.monotonic()
    try:
        with deadline.budget(BUDGET_SECONDS) as record:
            result: dict[str, Any] = {"returned": function()}
    except BaseException as exc:
        result = {"raised": type(exc).__name__, "is_timeout": isinstance(exc, TimeoutError), "message": str(exc)}
    result["seconds"] = time.monotonic() - began
    result["refusals"] = record.refusals
    return result
