"""Workers that died: of what, as far as anybody knows, and whether another one serves in their place."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...worker.balance import State
from ..collect import Moment
from ..shapes import View
from .finding import BAD, FEWEST, RECENT_SECONDS, WATCH, Finding, finding
from .words import duration, requests

# A kill by the kernel for want of memory is seen this close to the death.
OOM_SECONDS = 10.0


def died_lately(moment: Moment) -> list[dict[str, Any]]:
    return [
        event for event in moment.events if event["kind"] == "died" and moment.now - event["since"] < RECENT_SECONDS
    ]


def dead(moment: Moment, seen: View) -> list[Finding]:
    # Of one that had not begun it is told how it ended, a moment later.
    quiet = (State.EMPTY, State.DRAINING, State.BOOTING)
    gone = [worker for worker in moment.workers if worker.is_gone and worker.state not in quiet]
    died = died_lately(moment)
    if len(died) + len(gone) >= FEWEST:
        return [
            finding(
                BAD,
                f"Workers die again and again: {len(died) + len(gone)} in the last minute{_died_of(died)}"
                f"{_how_most(died, seen)}.",
                _advice(died[-1], seen) if died else DIED_WORDS,
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
        routes = ", ".join(event.get("routes", ()))
        with_it = f", with {requests(event['had'])} in it{routes and f' ({routes})'}" if event.get("had") else ""
        if stall := event.get("stall"):
            by = " by C code that held the GIL" if stall["holds_gil"] and not stall["line"] else ""
            with_it += f", blocked for {duration(stall['seconds'])}{by}{at_line(stall)}"
        ago = duration(moment.now - event["since"])
        found.append(
            finding(
                WATCH if replaced else BAD,
                f"Worker {event['worker']} (pid {event['pid']}) died {ago} ago{_how(event, seen)}{with_it}; "
                + ("its replacement serves." if replaced else "no replacement serves yet."),
                _advice(event, seen),
                cause="died",
                worker=event["worker"],
            )
        )
    return found


CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")
# A worker that was told to abort, and whose C code did not let it, sets itself an alarm: see worker.lifecycle.
GIVEN_UP = "SIGALRM"


def _is_oom(event: Mapping[str, Any], seen: View) -> bool:
    """Whether the kernel has killed for want of memory about then."""
    died = seen["now"] - event["since"]
    is_killed = (event.get("ending") or {}).get("signal") == "SIGKILL"
    return is_killed and any(abs(ago - died) < OOM_SECONDS for ago in seen["limits"].get("oom_seconds", ()))


def _how(event: Mapping[str, Any], seen: View) -> str:
    """In words: " of SIGKILL, from the kernel, which had no memory left"."""
    ending = event.get("ending") or {}
    signal, line = ending.get("signal"), ending.get("line")
    at = f" at {line}" if line else ""
    if _is_oom(event, seen):
        return ": the kernel killed it (SIGKILL), because memory was used up"
    if signal == "SIGKILL":
        return ": somebody killed it (SIGKILL)" if not event.get("stall") else ": killed (SIGKILL)"
    if signal == GIVEN_UP:
        return f": its loop did not turn for the timeout, and the server ended it{'' if event.get('stall') else at}"
    if signal in CRASHES:
        return f": it crashed in C code ({signal}){at}"
    if signal:
        return f" of {signal}{at}"
    if line:  # written when a fatal signal came, and the process could still end by itself
        return f": it was told to abort (SIGABRT){'' if event.get('stall') else at}"  # a stall has the line itself
    return f": it exited with code {ending['code']}" if ending.get("code") else ""


def _how_most(died: Sequence[Mapping[str, Any]], seen: View) -> str:
    ways = Counter(way for event in died if (way := _how(event, seen))).most_common(1)
    return "".join(f"; most{way if way.startswith(' ') else f' of them{way}'}" for way, _ in ways)


def _advice(event: Mapping[str, Any], seen: View) -> str:
    ending = event.get("ending") or {}
    signal = ending.get("signal")
    if _is_oom(event, seen):
        return (
            "Give the server more memory, or fewer workers; GREENROOM_WORKER_MEMORY_MB replaces a worker before the "
            "kernel kills it. dmesg has the kernel's report."
        )
    if signal == GIVEN_UP:
        return "See the line that blocked it: it computes, or waits in C, without letting others run."
    if signal in CRASHES:
        return "A C library has an error, or two threads use what one may: the log has the stack of each thread."
    if signal == "SIGKILL" and event.get("stall"):
        return "The arbiter kills a worker whose loop does not turn for the timeout; see the line that blocked it."
    if signal == "SIGKILL":
        return (
            "A person, a supervisor, or the kernel out of memory (dmesg): nothing in the server sends SIGKILL unasked."
        )
    if not signal and ending.get("line"):
        return (
            "The arbiter does so to a worker whose loop does not turn for the timeout; else it was a person, a "
            "supervisor, or code that sends signals: see that line, and the log."
        )
    if ending.get("code"):
        return "Code of the application or a library ended the process (os._exit, a fatal error): the log says more."
    return DIED_WORDS


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
