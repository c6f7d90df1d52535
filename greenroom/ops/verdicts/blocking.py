"""Why a line blocks: it computes, waits in C without the CPU, writes a log that nobody reads, collects garbage."""

import functools
import linecache
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..shapes import View

# Of the time that is a stall's own, so much without the CPU is a wait.
WAITED_RATIO = 0.7
LOGGING = "logging/__init__.py:"
LOG_WRITERS = ("emit", "flush", "write")
# Patterns of blocking source lines, and what to do instead; the first that fits counts.
WAITS = (
    (
        "os.system",
        "os.system() waits in C, where nobody else can go on: use subprocess.run(), which waits in the loop.",
    ),
    ("os.popen", "os.popen() waits in C: use subprocess.run(), which waits in the loop."),
    ("os.wait", "os.wait() waits in C: use subprocess, which waits in the loop."),
    ("flock", "A lock of a file is waited for in C: use LOCK_NB and try again after time.sleep()."),
    ("lockf", "A lock of a file is waited for in C: use LOCK_NB and try again after time.sleep()."),
    (
        "print(",
        "print() waits for whoever reads the output: its pipe is full. Start the reader again, or log to a file.",
    ),
    ("logg", "Logging waits for whoever reads the log: its pipe is full. Start the reader again, or log to a file."),
    ("sys.stdout", "It waits for whoever reads the output: its pipe is full."),
    (
        " open(",
        "A file is waited for in C: a network file system that hangs, or a FIFO that nobody writes to. offload() it.",
    ),
)
COMPUTES = (
    ("json", "Big JSON is made or read in one piece: answer in pages, stream it, or send it to offload()."),
    ("re.", "A regular expression that backtracks: bound its input, or write it without nested repetitions."),
    ("bcrypt", "Password hashing computes in C: offload() it."),
    ("hashlib", "Hashing computes in C: offload() what is large."),
    ("pickle", "Pickling computes in C: make the data smaller, or offload() it."),
    ("sorted(", "It computes: do less of it in a request, or offload() it."),
)
C_WAIT = "It waits in C without letting others run: use subprocess for programs, or offload() for a C library's call."


@functools.cache
def source_of(place: str) -> str:
    """The source at `file:line`, as the ops process can read it; "" if it can't."""
    file, _, line = place.rpartition(":")
    return linecache.getline(os.path.abspath(file), int(line)).strip() if line.isdecimal() and file else ""


def is_wait(stall: Mapping[str, Any]) -> bool:
    """Whether the thread used hardly any CPU in the stall's own time."""
    cpu = stall.get("cpu_seconds")
    own = max(0.0, float(stall["seconds"]) - float(stall.get("stolen_seconds") or 0.0))
    return cpu is not None and cpu >= 0.0 and own > 0.0 and own - float(cpu) > WAITED_RATIO * own


def is_log(stack: Sequence[str]) -> bool:
    """Whether the innermost calls write a log."""
    calls = [call.partition(" ")[::2] for call in list(stack)[:4]]
    return any(LOGGING in place and function.rpartition(".")[2] in LOG_WRITERS for place, function in calls)


def is_garbage(stall: Mapping[str, Any]) -> bool:
    return float(stall.get("garbage_seconds") or 0.0) > 0.5 * float(stall["seconds"])


def garbage_share(seen: View) -> float:
    """How much of the window the garbage collector took, of all workers' time."""
    spent = seen["garbage"]
    workers = max(1, seen["total"]["workers_serving"])
    return float(spent["seconds"] / (spent["window_seconds"] * workers)) if spent["window_seconds"] else 0.0


def advice(place: str, *, waits: bool, stack: Sequence[str] = ()) -> str:
    """Return the advice for a line that blocks; "" where nothing more is known than that it does."""
    if is_log(stack) and waits:
        return "Nobody reads the log's pipe, or its disk is slow: start its reader again, or log to a file."
    if is_log(stack):
        return "It logs much: a line that is said ten thousand times is better said once, with a count, or at DEBUG."
    source = source_of(place) + " ".join(list(stack)[:3])
    for words, do in WAITS if waits else COMPUTES:
        if words in source:
            return do
    return C_WAIT if waits else ""
