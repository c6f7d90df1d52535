"""The errors of a soak, as far as the log and the processes tell."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import psutil

# Errors that the application is made to raise: its own, and those that an ended wait raises in its code.
# EMFILE as well: /descriptors takes them all. And the exit of a worker that is told to stop while it imports the
# application: where the signal comes in a callback of weakref, Python shows it and goes on.
EXPECTED = re.compile(
    r"(tests\.soak\.app\.)?Planned|.*BudgetSpent|(requests\.|urllib3\.)?exceptions\.\w+|TimeoutError"
    r"|OSError: \[Errno 24\]|SystemExit: 0"
)
DIED = re.compile(
    r"was sent SIG(?!TERM)\w+!|WORKER TIMEOUT|exited with code [^0]|Fatal Python error|Segmentation|turns without"
)
# The limit for what a client may do to the loop. Measured by the processor's time of its thread, which a busy machine
# does not change. The application's own computing is not a client's doing.
LONGEST_STALL_SECONDS = 0.05
COMPUTING = ("/compute/<nonce>", "/descriptors/<nonce>")
SPIN_SECONDS, MOST_IDLE_CPU = 4.0, 0.1
MOST_GROWTH_BYTES = 25_000_000


def tracebacks(log: str) -> Counter[str]:
    """The errors of those that nobody planned, with the last place."""
    found: Counter[str] = Counter()
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("Traceback (most recent call last)"):
            continue
        place = ""
        for after in lines[number + 1 : number + 1000]:
            if after.startswith("  File"):
                place = after.strip()
            elif not after.startswith((" ", "|")) and after:
                if not EXPECTED.match(after):
                    found[f"{after[:150]} at {place[:150]}"] += 1
                break
    return found


def long_stalls(folder: Path) -> list[str]:
    """Of the loops of all workers, but for those of requests that compute on purpose."""
    found = []
    for path in folder.glob("stalls-*.jsonl"):
        for stall in map(json.loads, path.read_text().splitlines()):
            if stall["cpu_seconds"] > LONGEST_STALL_SECONDS and stall["route"] not in COMPUTING:
                found.append(f"{stall['cpu_seconds']:.3f} s of the processor at {stall['line']}: {stall['called']}")
    return sorted(found, reverse=True)


def deaths(log: str) -> list[str]:
    return [line for line in log.splitlines() if DIED.search(line)]


def workers(arbiter: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(arbiter).children():
        try:
            if "gunicorn" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def resident_bytes(arbiter: int) -> dict[str, int]:
    """Of the arbiter, and of the largest worker."""
    sizes = [process.memory_info().rss for process in workers(arbiter)]
    return {"arbiter": psutil.Process(arbiter).memory_info().rss, "worker": max(sizes, default=0)}


def idle_cpu(arbiter: int) -> float:
    """The share of a core that the busiest worker takes when nobody asks for anything."""
    before = {process.pid: sum(process.cpu_times()[:2]) for process in workers(arbiter)}
    time.sleep(SPIN_SECONDS)
    after = {process.pid: sum(process.cpu_times()[:2]) for process in workers(arbiter)}
    return max((after[pid] - spent for pid, spent in before.items() if pid in after), default=0.0) / SPIN_SECONDS
