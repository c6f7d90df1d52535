"""Holders of locks, and requests that wait for each other in a circle.

A lock of `threading` remembers who took it and where, and a greenlet that has to wait for one is noted; conditions,
semaphores and queues are built over these locks. So these can be named:

    circle    each waits for a lock that the next one holds
    self      a circle of one: a wait for a lock that the waiter holds itself, as when the garbage collector runs a
              `__del__` that takes the lock which the code under it has
    orphan    the greenlet that holds the lock has ended, and nobody else can be seen to release it

However many wait for an orphan, it is one. The locks within conditions and futures are not looked at: what waits there
waits for a word.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Literal

from greenlet import getcurrent

from .. import clock
from ..in_flight import current as get_record
from ..waits.stdlib import locks
from . import stacks

logger = logging.getLogger("gunicorn.error")

# A wait that is younger is not looked at.
SHORTEST_WAIT_SECONDS = 1.0
# Of deadlocks, and of those who wait in one: so many are told of, the others counted.
MOST_DEADLOCKS = 10
MOST_MEMBERS = 5
STANDARD = (str(threading.__file__), str(queue.__file__))

# The owner of a lock while it is held: greenlet, its request's record, and the code and instruction that took it.
Owner = tuple[Any, Any, CodeType, int]


@dataclass(slots=True, eq=False)
class Waiter:
    """A greenlet that waits for a lock. `seen` is its stack, once it is in a deadlock that was reported."""

    greenlet: Any
    lock: Any
    since: float
    record: Any
    seen: stacks.Stack | None = None

    @property
    def owner(self) -> Owner | None:
        note: Owner | None = self.lock.note
        return note

    def holder(self) -> str:
        """The holder of the lock: a request's id, "ended" for a greenlet that has ended, "" where it is not known."""
        owner = self.owner
        if owner is None or owner[0] is self.greenlet:
            return ""
        return "ended" if owner[0].dead else str(getattr(owner[1], "id", ""))

    def stack(self, deepest: int = stacks.DEEPEST_FRAMES) -> stacks.Stack:
        """Runs on: the loop's thread, see safepoint."""
        return stacks.of_frame(self.greenlet.gr_frame, deepest)

    def as_dict(self, now: float) -> dict[str, Any]:
        owner = self.owner
        return {
            "request": _id(self.record),
            "route": _route(self.record),
            "lock": _name(self.lock),
            "waits_for": _id(owner[1]) if owner else "",
            "waits_for_route": _route(owner[1]) if owner else "",
            "taken_at": place_of(owner) if owner else "",
            "waited_seconds": now - self.since,
            "stack": [str(call) for call in (self.stack() if self.seen is None else self.seen)],
        }

    def __str__(self) -> str:
        call = stacks.guilty(self.stack() if self.seen is None else self.seen)
        return f"request {_id(self.record) or '-'} at {call.place if call else stacks.UNKNOWN}"


@dataclass(slots=True)
class Deadlock:
    """Requests that wait in a circle, each for the next; or for a lock whose holder is gone, longest wait first."""

    kind: Literal["circle", "self", "orphan"]
    members: list[Waiter]

    @property
    def key(self) -> tuple[Any, ...]:
        """Return the identity of the deadlock, which does not change when more requests join it."""
        if self.kind == "orphan":
            return (id(self.members[0].lock),)
        return tuple(sorted(id(member.greenlet) for member in self.members))

    def as_dict(self, now: float) -> dict[str, Any]:
        since = [member.since for member in self.members]
        return {
            "kind": self.kind,
            # A circle is closed by its last member.
            "since_seconds": now - (min(since) if self.kind == "orphan" else max(since)),
            "waiting": len(self.members),
            "members": [member.as_dict(now) for member in self.members[:MOST_MEMBERS]],
        }

    def __str__(self) -> str:
        first = self.members[0]
        name, owner = _name(first.lock), first.owner
        taken = f"taken at {place_of(owner)} by request {_id(owner[1]) or '-'}" if owner else "released by now"
        if self.kind == "orphan":
            return f"lock held by a greenlet that has ended: {name}, {taken}; {len(self.members)} wait for it: {first}"
        if self.kind == "self":
            return f"deadlock: {first} waits for {name}, which it holds itself, {taken}"
        said = "; ".join(f"{member} waits for {_name(member.lock)}" for member in self.members[:MOST_MEMBERS])
        return f"deadlock: {said}{_more(self.members)}"


class Locks:
    """The waits for locks of this process; `found` are the deadlocks at the last report.

    Runs on: any greenlet; anybody may read.
    """

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self.now = now
        self.waiting: dict[Any, Waiter] = {}
        self.found: list[Deadlock] = []
        self.reported: set[tuple[Any, ...]] = set()

    def install(self) -> None:
        """Have the locks of `threading` remember. Runs on: worker start-up."""
        locks.observer = self

    def remove(self) -> None:
        if locks.observer is self:
            locks.observer = None

    def taken(self, owner: object, frame: FrameType) -> Owner:
        """The code that has just taken a lock by calling `frame`; for Condition and Queue, their caller."""
        caller = frame.f_back
        while caller is not None:
            code = caller.f_code
            if code.co_filename not in STANDARD:
                return owner, get_record(), code, caller.f_lasti
            frame, caller = caller, caller.f_back
        return owner, get_record(), frame.f_code, frame.f_lasti

    def waits(self, lock: object, wait: Callable[[], bool]) -> bool:
        waiting, me = self.waiting, getcurrent()
        # Of a wait that has not quite begun, if the garbage collector has run somebody's __del__ in it.
        outer = waiting.get(me)
        waiting[me] = Waiter(me, lock, self.now(), get_record())
        try:
            return wait()
        finally:
            if outer is None:
                del waiting[me]
            else:
                waiting[me] = outer

    def deadlocks(self) -> list[Deadlock]:
        """Those that there are at this moment, those that most wait in first. Runs on: the loop's thread."""
        now = self.now()
        waiting = {
            id(waiter.greenlet): waiter
            for waiter in list(self.waiting.values())
            if now - waiter.since >= SHORTEST_WAIT_SECONDS
        }
        found = [Deadlock("orphan", waiters) for waiters in _orphaned(waiting.values())] + _circles(waiting)
        return sorted(found, key=lambda deadlock: -len(deadlock.members))

    def report(self) -> None:
        """Say what is new, once. Runs on: background greenlet, about once a second."""
        if not self.waiting:
            self.reported.clear()
            self.found = []
            return
        deadlocks = self.deadlocks()
        for deadlock in deadlocks[:MOST_DEADLOCKS]:
            for member in deadlock.members[:MOST_MEMBERS]:
                member.seen = member.stack()
        self.found = deadlocks
        found = {deadlock.key: deadlock for deadlock in deadlocks}
        new = [deadlock for key, deadlock in found.items() if key not in self.reported]
        for deadlock in new[:MOST_DEADLOCKS]:
            parts = [str(deadlock)]
            for member in deadlock.members[:MOST_MEMBERS]:
                parts.append(f"request {_id(member.record) or '-'}, innermost call first:")
                parts += [f"  {call}" for call in member.seen or member.stack()]
            logger.error("%s", "\n".join(parts))
        if len(new) > MOST_DEADLOCKS:
            logger.error("deadlock: %d more, like these", len(new) - MOST_DEADLOCKS)
        self.reported = set(found)


def _orphaned(waiting: Iterable[Waiter]) -> list[list[Waiter]]:
    """Requests that wait for locks whose holder has ended, by lock; the longest wait first."""
    by_lock: dict[int, list[Waiter]] = {}
    for waiter in waiting:
        owner = waiter.owner
        if owner is not None and owner[0].dead:
            by_lock.setdefault(id(waiter.lock), []).append(waiter)
    return [sorted(waiters, key=lambda waiter: waiter.since) for waiters in by_lock.values()]


def _circles(waiting: Mapping[int, Waiter]) -> list[Deadlock]:
    """Each waits for one holder at most, so whoever follows them comes to an end or walks in a circle.

    Nobody is walked to twice: `walk_of` says in which walk somebody was met first.
    """
    found: list[Deadlock] = []
    walk_of: dict[int, int] = {}
    for walk, first in enumerate(waiting.values()):
        path: list[Waiter] = []
        at: Waiter | None = first
        while at is not None and id(at.greenlet) not in walk_of:
            walk_of[id(at.greenlet)] = walk
            path.append(at)
            owner = at.owner
            at = waiting.get(id(owner[0])) if owner is not None else None
        if at is None or walk_of[id(at.greenlet)] != walk:
            continue
        circle = path[path.index(at) :]
        found.append(Deadlock("circle" if len(circle) > 1 else "self", circle))
    return found


def place_of(owner: Owner) -> str:
    """`file:line` of where the lock was taken."""
    _, _, code, instruction = owner
    lines = (line for start, end, line in code.co_lines() if start <= instruction < end and line)
    return f"{stacks.shortened(code.co_filename)}:{next(lines, code.co_firstlineno)}"


def _name(lock: Any) -> str:
    return f"lock {id(lock):#x}"


def _more(members: list[Waiter]) -> str:
    return f"; and {len(members) - MOST_MEMBERS} more" if len(members) > MOST_MEMBERS else ""


def _id(record: Any) -> str:
    return str(getattr(record, "id", ""))


def _route(record: Any) -> str:
    return str(record.pattern()) if hasattr(record, "pattern") else ""
