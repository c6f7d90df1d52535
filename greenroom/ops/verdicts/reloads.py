"""Reloads: new code that can't be imported, or hangs while it is, and old code that goes on serving."""

import time

from ...worker.balance import State
from ..collect import Moment, Seen
from ..shapes import View
from .finding import BAD, WATCH, Finding, finding
from .words import count_of, duration, own_line

SLOW_START_SECONDS = 5.0
# Where no reload was asked for, at the first start above all, nobody knows how long its import usually takes.
SLOW_FIRST_START_SECONDS = 15.0
# A worker that could not start, with no reload, is told for so long.
TOLD_SECONDS = 120.0


def refused(moment: Moment, seen: View) -> list[Finding]:
    """A reload that changed nothing, until the next one."""
    why = moment.reload.get("refused")
    if not why:
        return []
    said = f"{why['error']}: {why['message'].rstrip('.')}" if why.get("message") else str(why["error"])
    at = f" at {why['line']}" if why.get("line") else ""
    return [
        finding(
            WATCH,
            f"The reload at {clock(moment.reload['at'])} changed nothing, its configuration can't be read: {said}{at}; "
            "the workers go on as they are.",
            "Repair that, and reload again with kill -HUP. A restart would end the server: it could not start.",
            cause="reload_refused",
            failure=why,
        )
    ]


def failed(moment: Moment, seen: View) -> list[Finding]:
    """The last workers that began could not import the application; until one has."""
    if not moment.boot_failures:
        return []
    last = moment.boot_failures[-1]
    began_since = [
        worker
        for worker in moment.workers
        if worker.first_seen_at > last["since"] and worker.state in (State.SERVING, State.RETIRING)
    ]
    reload_at = None if moment.reload.get("refused") else moment.reload.get("since")
    is_reload = reload_at is not None and reload_at <= last["since"] + 1.0
    is_newer_reload = reload_at is not None and reload_at > last["since"] + 1.0
    if began_since or is_newer_reload or (not is_reload and moment.now - last["since"] > TOLD_SECONDS):
        return []
    serving = seen["total"]["workers_serving"]
    old = f"the old code serves on ({count_of(serving, 'worker')})" if serving else "nobody serves"
    what = f"The reload at {clock(moment.reload['at'])} failed" if is_reload else "New workers can't start"
    said = f"{last['error']}: {last['message'].rstrip('.')}" if last.get("message") else str(last["error"])
    at = f" at {last['line']}" if last.get("line") else ""
    return [
        finding(
            WATCH if serving else BAD,
            f"{what}: {said}{at}; {old}.",
            "Repair that line (or install what it needs), and reload again with kill -HUP."
            + (" Nothing is lost meanwhile." if serving else ""),
            cause="reload_failed" if is_reload else "boot_failed",
            failure=last,
        )
    ]


def hanging(moment: Moment, seen: View) -> list[Finding]:
    """A worker that has been importing the application for long while others serve."""
    if not seen["total"]["workers_serving"]:
        return []  # told as that
    slow = [worker for worker in moment.workers if starts_slowly(moment, worker)]
    if not slow:
        return []
    worker = min(slow, key=lambda one: one.first_seen_at)
    stack = (worker.snapshot or {}).get("booting") or []
    where = own_line(stack)
    reload_at = moment.reload.get("at")
    of_reload = _is_of_reload(moment, worker)
    others = count_of(seen["total"]["workers_serving"], "worker")
    timeout = seen["about"].get("timeout_seconds") or 0
    return [
        finding(
            WATCH,
            (f"The reload at {clock(reload_at)} hangs: " if of_reload and reload_at else "")
            + f"worker {worker.number} imports the application for {duration(moment.now - worker.first_seen_at)}"
            + (f", now at {where}" if where else "")
            + (
                f"; the old code serves on ({others})."
                if of_reload
                else f"; {others} serve{'s' * (others == '1 worker')}."
            ),
            "An import should not wait for anything or compute for long. "
            + (f"It is killed after {timeout} s without an end." if timeout else ""),
            cause="import_hangs",
            stack=list(stack)[:30],
        )
    ]


def starts_slowly(moment: Moment, worker: Seen) -> bool:
    if worker.state != State.BOOTING or worker.is_gone:
        return False
    longest = SLOW_START_SECONDS if _is_of_reload(moment, worker) else SLOW_FIRST_START_SECONDS
    return moment.now - worker.first_seen_at >= longest


def _is_of_reload(moment: Moment, worker: Seen) -> bool:
    since = None if moment.reload.get("refused") else moment.reload.get("since")
    return since is not None and since <= worker.first_seen_at + 2.0


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
