"""Balance: a scoreboard that all workers can see, and the rule by which they leave connections to each other.

The scoreboard is anonymous shared memory, made in the arbiter before it forks. A line has one writer, its worker, and
any number of readers; there are no locks. A cell is one aligned 8-byte float, which no reader ever sees half written.

    line 0        about all: [0] lines in use, [1] whether the arbiter replaces workers (see recycle), [2] it stops
    line 1 ...    one worker each, in the order of FIELDS

A line is 128 bytes: two cache lines, because processors fetch them in pairs and neighbours must not slow each other.
The arbiter hands a line out before it forks, and again when the worker that had it is gone.
"""

import enum
import mmap
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from .. import clock

CELLS_PER_LINE = 16
CELL_BYTES = 8
# Twice the most workers that can be set: in a reload each has its replacement beside it. Unused lines cost no memory.
LINES = 1025
FIELDS = (
    "pid",
    "state",  # a State
    "heartbeat",  # when the loop last turned, on the monotonic clock, which all processes of a machine share
    "lag_seconds",  # how late it was then; decays
    "connections",
    "in_flight",
    "accepted",  # connections, since the worker's start
    "requests",  # since the worker's start
    "rss_bytes",
)
LINES_IN_USE, HAS_FLEET, IS_STOPPING = range(3)

HEARTBEAT_SECONDS = 0.05
# A worker that missed this many heartbeats is not waited for: it is busy, blocked or dead.
FRESH_SECONDS = 5 * HEARTBEAT_SECONDS
# So is one whose loop lags this much; and it waits for the others.
LAGGING_SECONDS = 0.1
# How long a worker that is ahead leaves a connection to the others: a step of the loop's clock, again and again while
# others accept; when nobody has for this long, it accepts.
STEP_SECONDS = 0.001
# By how much a worker may be ahead of the least loaded one and still accept.
AHEAD_RATIO = 1.1
LONGEST_WAIT_SECONDS = 0.01


class State(enum.IntEnum):
    """What a worker does. RETIRING: it serves on until the replacement it asked for has come."""

    EMPTY = 0
    BOOTING = 1
    SERVING = 2
    RETIRING = 3
    DRAINING = 4


ACCEPTING = (State.SERVING, State.RETIRING)


def _cell(offset: int) -> Any:
    def read(line: "Line") -> float:
        return float(line.cells[line.start + offset])

    def write(line: "Line", value: float) -> None:
        line.cells[line.start + offset] = value

    return property(read, write)


class Line:
    """One worker's line. The worker writes, everybody reads."""

    __slots__ = ("cells", "number", "start")

    def __init__(self, cells: Any, number: int) -> None:
        self.cells = cells
        self.number = number
        self.start = number * CELLS_PER_LINE

    pid, state, heartbeat, lag_seconds, connections, in_flight, accepted, requests, rss_bytes = (
        _cell(offset) for offset in range(len(FIELDS))
    )

    def clear(self) -> None:
        for offset in range(CELLS_PER_LINE):
            self.cells[self.start + offset] = 0.0

    def beat(self, now: float) -> None:
        """The loop has turned; late if the last time is longer ago than HEARTBEAT_SECONDS."""
        late = max(0.0, now - self.heartbeat - HEARTBEAT_SECONDS) if self.heartbeat else 0.0
        self.lag_seconds = max(late, self.lag_seconds / 2)
        self.heartbeat = now

    def is_willing(self, now: float) -> bool:
        """Whether this worker will accept a connection soon, as far as others can tell."""
        return self.state in ACCEPTING and now - self.heartbeat < FRESH_SECONDS and self.lag_seconds < LAGGING_SECONDS

    def load(self) -> float:
        """Open connections are load to come, requests in flight the load there is: a busy connection counts twice."""
        return float(self.connections + self.in_flight)

    def as_dict(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in FIELDS}


class Scoreboard:
    """All lines. `take` and `sweep` are the arbiter's; the rest is for everybody."""

    def __init__(self, lines: int = LINES) -> None:
        self.lines = lines
        self._map = mmap.mmap(-1, lines * CELLS_PER_LINE * CELL_BYTES)
        self._cells = memoryview(self._map).cast("d")
        self._owners: dict[int, weakref.ref[Any]] = {}

    def take(self, owner: Any) -> Line:
        """A line for `owner`, as long as somebody in this process refers to it: the arbiter forgets dead workers."""
        self.sweep()
        number = next((number for number in range(1, self.lines) if number not in self._owners), 0)
        if not number:
            raise RuntimeError(f"all {self.lines - 1} lines of the scoreboard are taken")
        self._owners[number] = weakref.ref(owner)
        self._cells[LINES_IN_USE] = max(self._cells[LINES_IN_USE], number)
        line = Line(self._cells, number)
        line.clear()
        line.state = State.BOOTING
        return line

    def sweep(self) -> None:
        """Clear the lines of workers that are gone."""
        for number, owner in list(self._owners.items()):
            if owner() is None:
                del self._owners[number]
                Line(self._cells, number).clear()

    def __iter__(self) -> Iterator[Line]:
        """The lines of workers that boot, serve or drain."""
        for number in range(1, int(self._cells[LINES_IN_USE]) + 1):
            line = Line(self._cells, number)
            if line.state != State.EMPTY:
                yield line

    def siblings(self, own: Line) -> Iterator[Line]:
        return (line for line in self if line.number != own.number)

    def someone_serves(self, *, but: Line) -> bool:
        """Whether another worker than `but` accepts connections, now or when it is done with what keeps it busy."""
        return any(line.state in ACCEPTING for line in self.siblings(but))

    has_fleet = property(
        lambda self: bool(self._cells[HAS_FLEET]),
        lambda self, value: self._cells.__setitem__(HAS_FLEET, float(value)),
        doc="Whether the arbiter starts the replacement of a worker that asks for one.",
    )
    is_stopping = property(
        lambda self: bool(self._cells[IS_STOPPING]),
        lambda self, value: self._cells.__setitem__(IS_STOPPING, float(value)),
        doc="Whether the whole server stops: nobody else will accept.",
    )


class Turn:
    """Whether it is this worker's turn to accept.

    All workers wait on one listening socket, and each of them wakes for each connection. The least loaded one takes it
    at once, so no connection waits while that one is free. Others stand back for STEP_SECONDS and look again. So:

    1. I am no more loaded than the least loaded of the willing others, or there are none: accept.
    2. My loop lags, theirs does not: stand back.
    3. I am more loaded: stand back, unless nobody has accepted anything for LONGEST_WAIT_SECONDS: then accept.
    """

    def __init__(self, board: Scoreboard, own: Line, now: Callable[[], float] = clock.now) -> None:
        self.board = board
        self.own = own
        self.now = now
        self._asked_at = 0.0
        self._since = 0.0
        self._accepted_by_others = 0.0

    def has_come(self) -> bool:
        """Runs on: hub, when a connection waits to be accepted."""
        now = self.now()
        willing = [line for line in self.board.siblings(self.own) if line.is_willing(now)]
        asked_at, self._asked_at = self._asked_at, now
        if not willing:
            return True
        is_lagging = self.own.lag_seconds >= LAGGING_SECONDS
        if not is_lagging and self.own.load() <= AHEAD_RATIO * min(line.load() for line in willing):
            return True
        accepted = sum(line.accepted for line in willing)
        if now - asked_at > 5 * STEP_SECONDS or accepted != self._accepted_by_others:
            # Another connection than the one we stood back from: that one was taken.
            self._since, self._accepted_by_others = now, accepted
        return now - self._since >= LONGEST_WAIT_SECONDS
