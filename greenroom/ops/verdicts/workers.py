"""Workers that do not serve: none there, blocked, dead, starting, being replaced."""

from collections.abc import Mapping
from typing import Any

from ...worker.balance import State
from ..collect import BLOCKED_SECONDS, Moment, Seen
from ..shapes import View
from .blocking import advice, garbage_share, is_garbage, is_log, is_wait
from .deaths import died_lately
from .finding import BAD, OK, WATCH, Finding, finding
from .reloads import starts_slowly
from .words import count_of, duration, innermost, requests

# A worker that did not answer for so long while its loop did not turn either has the GIL taken from it.
UNANSWERED_SECONDS = 1.5
SLOW_BOOT_SECONDS = 15.0
MOST_CALLS = 30
# The share of a core below which a blocked worker is taken to wait, once that is known of its block.
WAITING_CPU = 0.08
CPU_KNOWN_SECONDS = 2.5
MUCH_GARBAGE = 0.1
COMPUTES = "That line computes without letting others run."
COMPUTES_OR_WAITS = "That line computes, or waits in C, without letting others run."
HOLDS_GIL = (
    "A regular expression that backtracks, a big computation in a C library: offload or bound it. Or garbage "
    "collection of a big heap."
)


def nobody_serves(moment: Moment, seen: View) -> list[Finding]:
    if moment.is_stopping:
        return [
            finding(WATCH, f"The server stops: {requests(seen['total']['in_flight'])} to finish.", cause="stopping")
        ]
    if seen["total"]["workers_serving"]:
        return []
    booting = [worker for worker in moment.workers if worker.state == State.BOOTING and not worker.is_gone]
    died = died_lately(moment)
    if not booting:
        return [finding(BAD, "No worker runs.", "The server's log says why they ended.", cause="nobody")]
    longest = max(moment.now - worker.first_seen_at for worker in booting)
    where = next((innermost((worker.snapshot or {}).get("booting")) for worker in booting if worker.snapshot), "")
    level = BAD if died or longest > SLOW_BOOT_SECONDS else WATCH
    return [
        finding(
            level,
            f"No worker serves yet: {count_of(len(booting), 'worker')} starting, for {duration(longest)}"
            + (f", now at {where}." if where else "."),
            "They import the application.",
            cause="booting",
        )
    ]


def blocked(moment: Moment, seen: View) -> list[Finding]:
    found = []
    for worker in moment.workers:
        if worker.is_gone or worker.state in (State.EMPTY, State.BOOTING):
            continue
        stall = worker.current_stall()
        seconds = max(worker.silent_seconds, float(stall.get("seconds") or 0.0))
        if seconds < BLOCKED_SECONDS or _is_garbage(seconds, seen):
            continue
        if seconds < CPU_KNOWN_SECONDS and not worker.is_stopped and not stall.get("line") and not _holds_gil(worker):
            continue  # a busy machine has not let it run, mostly: in a moment it has told its line, or goes on
        found.append(_blocked_finding(worker, stall, seconds, seen))
    return sorted(found, key=lambda one: -one["seconds"])


def _is_garbage(seconds: float, seen: View) -> bool:
    """Whether it looks like one more of the pauses that the garbage collector has made lately, at any line."""
    pauses = [float(one["seconds"]) for one in seen["stalls"]["last"] if is_garbage(one)]
    return bool(pauses) and garbage_share(seen) > MUCH_GARBAGE and seconds < 2 * max(pauses)


def _holds_gil(worker: Seen) -> bool:
    """Whether its watch thread, too, has said nothing for so long."""
    return worker.unanswered_seconds > UNANSWERED_SECONDS and worker.unanswered_seconds >= worker.silent_seconds - 1.0


def _blocked_finding(worker: Seen, stall: Mapping[str, Any], seconds: float, seen: View) -> Finding:
    others = max(0, worker.in_flight - 1)
    waiting = f"; {count_of(others, 'other request')} and every new one wait" if others else "; its clients wait"
    timeout = seen["about"].get("timeout_seconds") or 0
    do = f"The server kills it after {timeout} s and starts another." if timeout else ""
    common: dict[str, Any] = {
        "worker": worker.number,
        "seconds": seconds,
        "cause": "blocked",
        "stack": list(stall.get("stack") or [])[:MOST_CALLS],
    }
    if worker.is_stopped:
        return finding(
            BAD,
            f"Worker {worker.number} (pid {worker.pid}) was stopped from outside (SIGSTOP) {duration(seconds)} ago.",
            f"kill -CONT {worker.pid} lets it go on. {do}",
            **common,
        )
    where = str(stall.get("line") or "")
    route = f" in {stall['route']}" if stall.get("route") else ""
    stack = list(stall.get("stack") or [])
    before = [one for one in seen["stalls"]["last"] if one.get("line") == where]
    is_known = seconds > CPU_KNOWN_SECONDS or bool(before)  # whether it uses the CPU
    waits = seconds > CPU_KNOWN_SECONDS and worker.cpu_ratio < WAITING_CPU
    waits = waits or sum(map(is_wait, before)) * 2 > len(before)
    if _holds_gil(worker) or stall.get("holds_gil"):
        place = f" at {where}{route}" if where else ""
        how = "C code holds the GIL and waits, without using the CPU" if waits else "C code holds the GIL"
        known = advice(where, waits=waits, stack=stack)
        known = known or HOLDS_GIL
        return finding(
            BAD,
            f"Worker {worker.number} is blocked{place} for {duration(seconds)}: {how}{waiting}.",
            f"{known} {do}",
            **{**common, "line": where, "holds_gil": True},
        )
    place = f" by {where}{route}" if where else " (its line is not known yet)"
    if is_log(stack) and (waits or not is_known):
        unread = ", and nobody reads it (the pipe is full)" if waits else ""
        return finding(
            BAD,
            f"Worker {worker.number} is blocked for {duration(seconds)}: it writes its log at {where or 'a line'}"
            f"{route}{unread}{waiting}.",
            f"{advice(where, waits=True, stack=stack)} {do}",
            **{**common, "line": where, "cause": "log_blocks"},
        )
    how = ": it waits in C, without using the CPU" if waits else ""
    known = advice(where, waits=waits, stack=stack) or (COMPUTES if is_known else COMPUTES_OR_WAITS)
    return finding(
        BAD,
        f"Worker {worker.number} is blocked{place} for {duration(seconds)}{how}{waiting}.",
        f"{known} {do}",
        **{**common, "line": where, "waits": waits},
    )


def under_way(moment: Moment, seen: View) -> list[Finding]:
    """Nothing to worry about, and worth knowing."""
    found = []
    for worker in moment.workers:
        name = f"Worker {worker.number} (pid {worker.pid})"
        if worker.state == State.DRAINING and not worker.is_gone:
            left = requests(worker.in_flight)
            found.append(finding(OK, f"{name} is being replaced: {left} to finish.", cause="replacing"))
        age = moment.now - worker.first_seen_at
        if worker.state == State.BOOTING and not worker.is_gone and seen["total"]["workers_serving"]:
            if not starts_slowly(moment, worker):
                found.append(finding(OK, f"{name} has been starting for {duration(age)}.", cause="starting"))
    return found
