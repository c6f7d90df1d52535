"""Looking once a second at what waits: which line of the application, through which library, and who holds the lock.

    callers     for each thing that is waited for, the lines that wait for it and their routes
    holders     for each lock that requests queue for: where it was taken, by which route, what that waits for
    executors   pools of threads with more work than threads: how many queue, what those that work wait for

The frames that are looked at are of greenlets that are switched out, in the loop's own thread, where nothing can change
under the look (see safepoint). So many at most, the longest waits first: about a millisecond.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .. import clock, observing, redaction
from ..waits.stdlib.calls import Look
from ..waits.stdlib.composed import Composed
from . import stacks
from .account import CPU, READY, STATE_OF, STATES, Account
from .locks import Waiter, place_of
from .names import described

MOST_LOOKED_AT = 150
MOST_LINES = 3
MOST_KEPT = 50
SHORTEST_SECONDS = 0.2
# A lock that was waited for lately is remembered for this long: its holder changes from moment to moment.
REMEMBER_SECONDS = 5.0
# A wait in pieces, as of a library that polls, is followed in requests that are so old; between the pieces it computes
# for no more than this share of the time.
FOLLOWED_SECONDS = 1.0
PIECES_CPU_SHARE = 0.02

LOCK, OTHER = STATE_OF["lock"], STATE_OF["other"]

What = tuple[str, str]  # state, detail


class Followed(NamedTuple):
    """A wait in pieces: what for, with which call; since when; and how much CPU its request had used at some moment."""

    what: tuple[int, str, int]
    since: float
    at: float
    cpu_seconds: float


class Callers:
    """Of one worker. Runs on: the loop's thread; anybody may read what was found last."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self.now = now
        self.lines: dict[What, list[dict[str, Any]]] = {}
        self.holders: list[dict[str, Any]] = []
        self.executors: list[dict[str, Any]] = []
        self._remembered: dict[int, tuple[float, dict[str, Any]]] = {}
        self._followed: dict[Account, Followed] = {}

    def look(self, live: Iterable[Account], waiters: Iterable[Waiter]) -> None:
        now, live = self.now(), list(live)
        self._followed = self._follow(live, now)
        waiting = [
            account for account in live if account.state > READY and now - self.since(account) > SHORTEST_SECONDS
        ]
        if not waiting and not self.lines and not self._remembered:
            return
        waiting.sort(key=self.since)
        self.lines = self._lines(waiting[:MOST_LOOKED_AT])
        self.holders = [*self._holders(list(waiters), now), *semaphores(waiting[:MOST_LOOKED_AT], now)]
        self.executors = _executors()

    def since(self, account: Account) -> float:
        """When its wait began, that of all pieces where it is one in pieces. Runs on: any thread."""
        since = waits_since(account)
        followed = self._followed.get(account)
        if followed is None or followed.what[:2] != (account.state, account.detail):
            return since
        return min(since, followed.since)

    def _follow(self, live: list[Account], now: float) -> dict[Account, Followed]:
        followed: dict[Account, Followed] = {}
        for account in live[:MOST_LOOKED_AT]:
            before = self._followed.get(account)
            if now - account.began > FOLLOWED_SECONDS and (one := _piece(account, before, now)) is not None:
                followed[account] = one
        return followed

    def _lines(self, waiting: list[Account]) -> dict[What, list[dict[str, Any]]]:
        found: dict[What, Counter[tuple[str, str, str]]] = {}
        for account in waiting:
            wait = account.wait()
            greenlet = account.greenlet if wait is None else wait.greenlet
            line, library = line_and_library(getattr(greenlet, "gr_frame", None))
            state = STATES[account.state]
            what = state, redaction.detail(state, detail_of(account))
            found.setdefault(what, Counter())[line, account.pattern(), library] += 1
        return {
            what: [
                {"line": line, "route": route, "library": library, "count": count}
                for (line, route, library), count in lines.most_common(MOST_LINES)
            ]
            for what, lines in list(found.items())[:MOST_KEPT]
        }

    def _holders(self, waiters: list[Waiter], now: float) -> list[dict[str, Any]]:
        by_lock: dict[int, list[Waiter]] = {}
        for waiter in waiters:
            if type(waiter.record) is Account:
                by_lock.setdefault(id(waiter.lock), []).append(waiter)
        for number, those in by_lock.items():
            _, before = self._remembered.get(number, (0.0, {}))
            held = _holder(those[0])
            if not held and not before and len(those) == 1:
                continue  # a stream that listens, mostly: nobody has the lock, and to look for its name takes long
            # While it is handed over nobody has it: then the last holder stands for the next.
            row = {**before, **held, "count": len(those), "longest_seconds": now - min(one.since for one in those)}
            row["name"] = redaction.line(described(those[0].lock, those[0].lock))
            row["wanted_at"] = _wanted_at(those) or row.get("wanted_at", "")
            self._remembered[number] = now, row
        for number in [one for one, (at, _) in self._remembered.items() if now - at > REMEMBER_SECONDS]:
            del self._remembered[number]
        rows = [row for at, row in self._remembered.values() if at == now]
        return sorted(rows, key=lambda row: -row["count"])[:MOST_KEPT]


def semaphores(waiting: Iterable[Account], now: float) -> list[dict[str, Any]]:
    """Semaphores that requests queue for. They do not know who has their places, and so neither do we."""
    found: dict[int, tuple[Any, list[Composed]]] = {}
    routes: dict[int, str] = {}
    for account in waiting:
        wait = account.wait()
        if type(wait) is Composed and wait.detail == "semaphore":
            found.setdefault(id(wait.thing), (wait.thing, []))[1].append(wait)
            routes.setdefault(id(wait.thing), account.pattern())
    return [
        {
            "kind": "semaphore",
            "name": redaction.line(described(thing, thing._cond._lock)),
            "route": routes[number],
            "places": int(getattr(thing, "_initial_value", 0)),  # of a BoundedSemaphore
            "wanted_at": line_and_library(getattr(waits[0].greenlet, "gr_frame", None))[0],
            "count": len(waits),
            "longest_seconds": now - min(wait.since for wait in waits),
        }
        for number, (thing, waits) in found.items()
    ]


def line_and_library(frame: Any) -> tuple[str, str]:
    """The application's innermost line, and the package that it waits in: ("shop/prices.py:9", "redis")."""
    library = ""
    innermost = frame
    while frame is not None:
        file = frame.f_code.co_filename
        if not stacks.is_installed_file(file):
            return f"{stacks.shortened(file)}:{frame.f_lineno or 0}", library
        library = library or stacks.library_of(file)
        frame = frame.f_back
    call = stacks.guilty_of_frame(innermost) if innermost is not None else None
    return (call.place if call is not None else ""), library


def caller() -> tuple[str, str]:
    """The line that has called, and the library between. Runs on: request greenlet; some microseconds."""
    return line_and_library(sys._getframe(1))


def detail_of(account: Account) -> str:
    """What a request waits for, as its wait says. Runs on: any thread.

    A wait that nobody has named is one of gevent's own primitives, mostly; in a request whose answer has begun, that of
    a stream which listens.
    """
    if account.state == OTHER and not account.detail and getattr(account.answer, "headers_sent", False):
        return "stream"
    return account.detail


def _piece(account: Account, before: Followed | None, now: float) -> Followed | None:
    """The wait that a request is in, as the next piece of the one before or the first of its own; None: not in pieces.

    That goes on which waits for the same, and hardly computes in between: a poll by a library, or a part of an
    upstream's answer, as long as no other call to that upstream has been made.
    """
    if account.state <= READY:
        return before  # in a moment it waits again, or has used the CPU
    calls = 0
    if STATES[account.state] == "upstream":
        calls = (account.calls or {}).get(account.detail, 0)
        if not calls:
            return None  # nobody counts them
    elif not isinstance(account.wait(), Look):
        return None
    what = account.state, account.detail, calls
    cpu_seconds = account.seconds[CPU]
    since = account.since
    if before is not None and before.what == what:
        used = cpu_seconds - before.cpu_seconds
        if used <= PIECES_CPU_SHARE * (now - before.at):
            since = before.since
    return Followed(what, since, now, cpu_seconds)


def waits_since(account: Account) -> float:
    """When its state began; of a lock that is asked for again and again, as of files, when that began.

    Runs on: any thread.
    """
    if account.state == LOCK:
        for wait in tuple(account.waits):  # in one step of the interpreter
            if wait.kind == "lock" and wait.detail == account.detail and wait.greenlet is account.greenlet:
                return min(account.since, wait.since)
    return account.since


def _holder(waiter: Waiter) -> dict[str, Any]:
    """The holder of the lock that is waited for, and what it does meanwhile; {} where that is not known."""
    owner = waiter.owner
    if owner is None or owner[0] is waiter.greenlet:
        return {}
    greenlet, record = owner[0], owner[1]
    line, library = line_and_library(getattr(greenlet, "gr_frame", None))
    said = {
        "taken_at": place_of(owner),
        "route": record.pattern() if type(record) is Account else "",
        "request": str(getattr(record, "id", "")),
        "state": "",
        "detail": "",
        "line": line,
        "library": library,
    }
    if type(record) is Account and not record.ended:
        waits = [wait for wait in list(record.waits) if wait.greenlet is greenlet]
        if waits:
            wait = max(waits, key=_since)
            said["state"], said["detail"] = wait.kind, redaction.detail(wait.kind, wait.detail)
        elif record.state == CPU:
            said["state"] = "cpu"
    return said


def _wanted_at(waiters: list[Waiter]) -> str:
    lines = Counter(line_and_library(getattr(one.greenlet, "gr_frame", None))[0] for one in waiters[:MOST_LINES])
    return lines.most_common(1)[0][0] if lines else ""


def _executors() -> list[dict[str, Any]]:
    """Executors that have more to do than threads, as CPython's own have it."""
    rows = []
    for used, executor in [(shown, each) for shown in observing.executors for each in list(shown.executors)]:
        size, queued = int(executor._max_workers), int(executor._work_queue.qsize())
        if not queued:
            continue
        at_work = [job for job in list(used.at_work.items()) if job[1][0]() is executor]
        rows.append(
            {
                "name": redaction.line(_called(executor)),
                "size": size,
                "queued": queued,
                "at_work": len(at_work),
                **_work_of(at_work),
            }
        )
    return sorted(rows, key=lambda row: -row["queued"])[:MOST_KEPT]


def _called(executor: Any) -> str:
    """Name an executor: its threads' name and the place that made it; without such a name, as a module names it."""
    prefix = str(executor._thread_name_prefix)
    where = described(executor, getattr(executor, "_shutdown_lock", None))
    if prefix.startswith("ThreadPoolExecutor-"):
        return where or prefix
    return f"{prefix}, {where}" if where else prefix


def _work_of(at_work: list[tuple[Any, tuple[Any, Any]]]) -> dict[str, Any]:
    """Summarise the running jobs: the commonest wait, the line of it, and the route it is for."""
    seen: Counter[tuple[str, str, str, str]] = Counter()
    for greenlet, (_, record) in at_work:
        waits = [wait for wait in list(record.waits) if wait.greenlet is greenlet]
        wait = max(waits, key=_since, default=None)
        line, _ = line_and_library(getattr(greenlet, "gr_frame", None))
        kind, detail = ("", "") if wait is None else (wait.kind, redaction.detail(wait.kind, wait.detail))
        route = record.pattern() if hasattr(record, "pattern") else ""
        seen[kind, detail, line, route] += 1
    (state, detail, line, route), _ = seen.most_common(1)[0] if seen else (("", "", "", ""), 0)
    return {"state": state, "detail": detail, "line": line, "route": route}


def attach(waiting: list[dict[str, Any]], lines: Mapping[What, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of `waiting_for`, each with the lines that were last seen to wait for it."""
    return [{**row, "lines": lines.get((row["state"], row["detail"]), [])} for row in waiting]


def _since(thing: Any) -> float:
    return float(thing.since)
