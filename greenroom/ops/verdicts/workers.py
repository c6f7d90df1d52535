"""Workers that do not serve: none there, blocked, dead, starting, being replaced."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...worker.balance import State
from ..collect import BLOCKED_SECONDS, Moment, Seen
from .finding import BAD, FEWEST, OK, RECENT_SECONDS, WATCH, Finding, finding
from .words import count_of, duration, innermost, requests

# A worker that did not answer for so long while its loop did not turn either has the GIL taken from it.
UNANSWERED_SECONDS = 1.5
SLOW_BOOT_SECONDS = 15.0
MOST_CALLS = 30


def nobody_serves(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    if moment.is_stopping:
        return [
            finding(WATCH, f"The server stops: {requests(seen['total']['in_flight'])} to finish.", cause="stopping")
        ]
    if seen["total"]["workers_serving"]:
        return []
    booting = [worker for worker in moment.workers if worker.state == State.BOOTING and not worker.is_gone]
    died = _died(moment)
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


def blocked(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    found = []
    for worker in moment.workers:
        if worker.is_gone or worker.state in (State.EMPTY, State.BOOTING):
            continue
        stall = worker.current_stall()
        seconds = max(worker.silent_seconds, float(stall.get("seconds") or 0.0))
        if seconds < BLOCKED_SECONDS:
            continue
        found.append(_blocked_finding(worker, stall, seconds, seen))
    return sorted(found, key=lambda one: -one["seconds"])


def _blocked_finding(worker: Seen, stall: Mapping[str, Any], seconds: float, seen: Mapping[str, Any]) -> Finding:
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
    holds_gil = worker.unanswered_seconds > UNANSWERED_SECONDS and worker.unanswered_seconds >= seconds - 1.0
    if holds_gil or stall.get("holds_gil"):
        place = f" at {where}{route}" if where else ""
        return finding(
            BAD,
            f"Worker {worker.number} is blocked{place} for {duration(seconds)}: C code holds the GIL{waiting}.",
            "A regular expression that backtracks, a big computation in a C library: run it elsewhere or bound it. "
            + do,
            **{**common, "line": where, "holds_gil": True},
        )
    place = f" by {where}{route}" if where else ", by a line that it has not told yet"
    return finding(
        BAD,
        f"Worker {worker.number} is blocked{place} for {duration(seconds)}{waiting}.",
        f"That line computes or waits without letting others run. {do}",
        **{**common, "line": where},
    )


def _died(moment: Moment) -> list[dict[str, Any]]:
    return [
        event for event in moment.events if event["kind"] == "died" and moment.now - event["since"] < RECENT_SECONDS
    ]


def dead(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    gone = [worker for worker in moment.workers if worker.is_gone and worker.state not in (State.EMPTY, State.DRAINING)]
    died = _died(moment)
    if len(died) + len(gone) >= FEWEST:
        return [
            finding(
                BAD,
                f"Workers die again and again: {len(died) + len(gone)} in the last minute{_died_of(died)}.",
                "The log has each one's last words; out of memory, a crash in C code, or the worker timeout kill them.",
                cause="died",
            )
        ]
    found = [
        finding(BAD, f"Worker {worker.number} (pid {worker.pid}) has just died.", DIED_WORDS, cause="died")
        for worker in gone
    ]
    for event in reversed(died):
        replaced = any(
            worker.state in (State.SERVING, State.RETIRING) and worker.first_seen_at >= event["since"] - 2.0
            for worker in moment.workers
        )
        with_it = f", with {requests(event.get('had', 0))} in it" if event.get("had") else ""
        if stall := event.get("stall"):
            by = " by C code that held the GIL" if stall["holds_gil"] and not stall["line"] else ""
            with_it += f", blocked for {duration(stall['seconds'])}{by}{at_line(stall)}"
        ago = duration(moment.now - event["since"])
        found.append(
            finding(
                WATCH if replaced else BAD,
                f"Worker {event['worker']} (pid {event['pid']}) died {ago} ago{with_it}; "
                + ("its replacement serves." if replaced else "no replacement serves yet."),
                DIED_WORDS,
                cause="died",
                worker=event["worker"],
            )
        )
    return found


def at_line(stall: Mapping[str, Any]) -> str:
    """Where, as far as it is known: " at file:line in /route"."""
    route = f" in {stall['route']}" if stall.get("route") else ""
    return f" at {stall['line']}{route}" if stall.get("line") else route


def _died_of(died: Sequence[Mapping[str, Any]]) -> str:
    """The line at which most of those that died blocked were."""
    stalls = [event["stall"] for event in died if event.get("stall")]
    if not stalls:
        return ""
    place, count = Counter(at_line(stall) for stall in stalls).most_common(1)[0]
    return f", {len(stalls)} of them blocked" + (f", {count}{place}" if place else "")


DIED_WORDS = (
    "Killed from outside, out of memory, a crash in C code, or the worker timeout: the server's log says which."
)


def under_way(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    """Nothing to worry about, and worth knowing."""
    found = []
    for worker in moment.workers:
        name = f"Worker {worker.number} (pid {worker.pid})"
        if worker.state == State.DRAINING and not worker.is_gone:
            left = requests(worker.in_flight)
            found.append(finding(OK, f"{name} is being replaced: {left} to finish.", cause="replacing"))
        if worker.state == State.BOOTING and seen["total"]["workers_serving"]:
            age = duration(moment.now - worker.first_seen_at)
            found.append(finding(OK, f"{name} has been starting for {age}.", cause="starting"))
    return found
