"""Words that several findings have."""

from collections.abc import Mapping, Sequence
from typing import Any

from .findings import Finding


def duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def is_wait(stalls: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the thread slept in C for most of these stalls: it waited for somebody, and did not compute."""
    seconds = sum(float(one["seconds"]) for one in stalls)
    computed = sum(float(one.get("cpu_seconds", seconds)) + float(one.get("stolen_seconds", 0.0)) for one in stalls)
    return computed < seconds / 2


def change_for_wait(file: str, static: Sequence[Finding]) -> str:
    """What to do about a driver that waits in C: as reading has said of the driver that the file imports."""
    for finding in static:
        if finding.rule == "driver-cannot-wait" and finding.level != "note" and finding.file == file:
            return finding.do
    return (
        "It waits in C, where gevent cannot switch: a driver in plain Python, or let the call wait in a thread: name "
        "it in GREENROOM_OFFLOAD_DRIVERS."
    )


def change_for_stall(called: str, holds_gil: bool) -> str:
    if holds_gil:
        return (
            "C code that keeps the GIL helps no thread: bound its input (a regular expression without nested "
            "repetition), or do it in a job."
        )
    if called:
        return (
            "Do less of it, or do it in a job; C code that gives the GIL away can run in threads: name the function in "
            "GREENROOM_OFFLOAD (it computes) or GREENROOM_OFFLOAD_DRIVERS (it waits for somebody)."
        )
    return "Compute less in the request: remember the result, or do it in a job (Celery, RQ)."
