"""Words that several findings have."""

from collections.abc import Mapping, Sequence
from typing import Any

from .findings import Finding


def duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def change_for(stalls: Sequence[Mapping[str, Any]], called: str, file: str, static: Sequence[Finding]) -> str:
    """Return the change for a line that stops the loop; `static` has the findings on drivers that the file imports."""
    holds_gil = sum(bool(one.get("holds_gil")) for one in stalls) * 2 > len(stalls)
    driver = next(
        (one.do for one in static if (one.rule, one.file) == ("driver-cannot-wait", file) and one.level != "note"), ""
    )
    waits = None if any("cpu_seconds" not in one for one in stalls) else _is_wait(stalls)
    if not holds_gil and (waits or (waits is None and driver)):
        return driver or (
            "It waits in C, where gevent cannot switch: a driver in plain Python, or let the call wait in a thread: "
            "name it in GREENROOM_OFFLOAD_DRIVERS."
        )
    return change_for_stall(called, holds_gil and bool(called))


def _is_wait(stalls: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the thread slept in C for most of these stalls: it waited for somebody, and did not compute."""
    seconds = sum(float(one["seconds"]) for one in stalls)
    return sum(float(one["cpu_seconds"]) + float(one.get("stolen_seconds", 0.0)) for one in stalls) < seconds / 2


def change_for_stall(called: str, holds_gil: bool) -> str:
    if holds_gil:
        return (
            "C code that keeps the GIL gains nothing from threads: a smaller input (a regular expression: no nested "
            "repetition), or a job."
        )
    if called:
        return (
            "Do less of it, or do it in a job; C code that gives the GIL away can run in threads: name the function in "
            "GREENROOM_OFFLOAD (it computes) or GREENROOM_OFFLOAD_DRIVERS (it waits for somebody)."
        )
    return "Compute less in the request: remember the result, or do it in a job (Celery, RQ)."
