"""Balance: a scoreboard that all workers can see, and the rule by which they leave connections to each other.

The scoreboard is shared memory without a name, made in the arbiter before it forks; a process that is no fork of it
gets its descriptor (greenroom.ops). A line has one writer, its worker, and any number of readers; there are no locks. A
cell is one aligned 8-byte float, which no reader ever sees half written.

    line 0        about all, the arbiter's: [0] lines in use, [1] whether it replaces workers (see recycle),
                  [2] it stops, [3] odd while it adds to what follows, [4] ... what workers that are gone have
                  counted: see TOTALS
    line 1 ...    one worker each, in the order of FIELDS

A line is 128 bytes: two cache lines, because processors fetch them in pairs and neighbours must not slow each other.
The arbiter hands a line out before it forks, and again when the worker that had it is gone.
"""

import enum
import mmap
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    "shed",  # turned away, or their clients left the line; since the worker's start, and so are the next ones
    "errors",  # answers 500 to 599 that the application or the server gave, without those turned away
    "expired",  # requests whose budget was spent
    "stalls",
    "offered",  # in_flight and those that were about to begin, when requests last came: in_flight is the heartbeat's
    "queued",  # requests in line, on average over half a second
    "expected",  # requests a second that its connections will bring: see sharing
)
# Counters that must not be lost with a worker: added up in line 0 when its line is cleared.
COUNTERS = ("accepted", "requests", "shed", "errors", "expired", "stalls")
LINES_IN_USE, HAS_FLEET, IS_STOPPING, GENERATION = range(4)
# Sums in line 0, from cell FIRST_TOTAL on: workers that were started, that ended, of those: that died at work.
TOTALS = (*COUNTERS, "workers_started", "workers_ended", "workers_died")
FIRST_TOTAL = 4
READ_ATTEMPTS = 100

HEARTBEAT_SECONDS = 0.05
# A worker that missed this many heartbeats is not waited for: it is busy, blocked or dead.
FRESH_SECONDS = 5 * HEARTBEAT_SECONDS
# So is one whose loop lags this much; and it waits for the others.
LAGGING_SECONDS = 0.1
# How long a worker that is ahead leaves a connection to the others: a step of the loop's clock, again and again while
# others accept; when nobody has for this long, it accepts.
STEP_SECONDS = 0.001
# By how much a worker may be ahead of the one that expects least and still accept.
AHEAD_RATIO = 1.1
LONGEST_WAIT_SECONDS = 0.02
# And before the next one, if they still accept nothing.
SHORT_WAIT_SECONDS = 0.005


class State(enum.IntEnum):
    """The state of a worker. RETIRING: it serves on until the replacement it asked for has come."""

    EMPTY = 0
    BOOTING = 1
    SERVING = 2
    RETIRING = 3
    DRAINING = 4


ACCEPTING = (State.SERVING, State.RETIRING)
# Where in a line those fields are that a worker looks at in the others' before it accepts.
COMPARED = [FIELDS.index(name) for name in ("state", "heartbeat", "lag_seconds", "queued", "expected", "accepted")]


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
        _cell(offset) for offset in range(9)
    )
    shed, errors, expired, stalls, offered, queued, expected = (_cell(offset) for offset in range(9, len(FIELDS)))
    # Of a worker that ends before it serves: why, as a number. Nothing is expected of it.
    boot_cause = _cell(FIELDS.index("expected"))

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

    def as_dict(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in FIELDS}


class Scoreboard:
    """All lines. `take` and `sweep` are the arbiter's; the rest is for everybody.

    `descriptor` is that of a scoreboard which another process has made.
    """

    def __init__(self, lines: int = LINES, descriptor: int | None = None) -> None:
        size_bytes = lines * CELLS_PER_LINE * CELL_BYTES
        self.lines = lines
        self.descriptor = _memory(size_bytes) if descriptor is None else descriptor
        weakref.finalize(self, os.close, self.descriptor)
        self._map = mmap.mmap(self.descriptor, size_bytes)
        self._cells = memoryview(self._map).cast("d")
        self._owners: dict[int, weakref.ref[object]] = {}

    def take(self, owner: object) -> Line:
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
        self._add({"workers_started": 1.0})
        return line

    def sweep(self) -> None:
        """Clear the lines of workers that are gone."""
        for number, owner in list(self._owners.items()):
            if owner() is None:
                del self._owners[number]
                line = Line(self._cells, number)
                self._add(
                    {
                        **{name: getattr(line, name) for name in COUNTERS},
                        "workers_ended": 1.0,
                        "workers_died": float(line.state not in (State.EMPTY, State.DRAINING)),
                    },
                    line,
                )

    def _add(self, amounts: Mapping[str, float], cleared: Line | None = None) -> None:
        """Add to the totals and clear the line they come from, so that no reader sees them twice or not at all."""
        self._cells[GENERATION] += 1
        for name, amount in amounts.items():
            self._cells[FIRST_TOTAL + TOTALS.index(name)] += amount
        if cleared is not None:
            cleared.clear()
        self._cells[GENERATION] += 1

    def read(self) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Return the counts of all workers, those that are gone included (see TOTALS), and the lines as they are.

        Each line also says its `number`.
        """
        for _ in range(READ_ATTEMPTS):
            before = self._cells[GENERATION]
            lines = [{"number": number, **Line(self._cells, number).as_dict()} for number in self._numbers()]
            totals = {name: self._cells[FIRST_TOTAL + at] for at, name in enumerate(TOTALS)}
            if before % 2 == 0 and before == self._cells[GENERATION]:
                break
            time.sleep(0)
        # After as many attempts the arbiter was killed in the middle of its sums: nothing else can be had.
        for name in COUNTERS:
            totals[name] += sum(line[name] for line in lines)
        # A worker that has ended orderly says that its line is empty, but its counts stand there until they are added.
        return totals, [line for line in lines if line["state"] != State.EMPTY]

    def _numbers(self) -> range:
        return range(1, int(self._cells[LINES_IN_USE]) + 1)

    def __iter__(self) -> Iterator[Line]:
        """The lines of workers that boot, serve or drain."""
        for number in self._numbers():
            line = Line(self._cells, number)
            if line.state != State.EMPTY:
                yield line

    def columns(self, offsets: Iterable[int]) -> Iterator[tuple[float, ...]]:
        """These fields of each line in use, the first line's first: some steps for each field, and none for a line."""
        end = (int(self._cells[LINES_IN_USE]) + 1) * CELLS_PER_LINE
        columns = (self._cells[CELLS_PER_LINE + offset : end : CELLS_PER_LINE].tolist() for offset in offsets)
        return zip(*columns, strict=False)

    def siblings(self, own: Line) -> Iterator[Line]:
        return (line for line in self if line.number != own.number)

    def someone_serves(self, *, but: Line) -> bool:
        """Whether another worker than `but` accepts connections, now or when it is done with what keeps it busy."""
        return any(line.state in ACCEPTING for line in self.siblings(but))

    is_of_one = property(lambda self: self._cells[LINES_IN_USE] <= 1.0, doc="Whether no other worker ever was.")
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


def _memory(size_bytes: int) -> int:
    """A descriptor of shared memory that no other process can open by a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("greenroom-scoreboard")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size_bytes)
    return descriptor


class Turn:
    """Whether it is this worker's turn to accept.

    All workers wait on one listening socket, and each of them wakes for each connection. The one that expects the
    fewest requests takes it at once, so no connection waits while that one is free. Others stand back for STEP_SECONDS
    and look again. So:

    1. I expect no more than the one of the willing others who expects least, or there are none: accept.
    2. My loop lags, or requests wait in my line, theirs does not, or not in theirs: stand back.
    3. I expect more: stand back, unless nobody has accepted anything for LONGEST_WAIT_SECONDS: then accept
       one.
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
        willing = self._willing(now)
        asked_at, self._asked_at = self._asked_at, now
        if not willing:
            return True
        is_busy = self.own.lag_seconds >= LAGGING_SECONDS or (
            self.own.queued >= 1.0 and any(queued < 1.0 for queued, _, _ in willing)
        )
        if not is_busy and self.own.expected <= AHEAD_RATIO * min(expected for _, expected, _ in willing):
            return True
        accepted = sum(accepted for _, _, accepted in willing)
        if now - asked_at > 5 * STEP_SECONDS or accepted != self._accepted_by_others:
            # Another connection than the one we stood back from: that one was taken.
            self._since, self._accepted_by_others = now, accepted
        if now - self._since < LONGEST_WAIT_SECONDS:
            return False
        self._since = now - LONGEST_WAIT_SECONDS + SHORT_WAIT_SECONDS
        return True

    def _willing(self, now: float) -> list[tuple[float, float, float]]:
        """`queued`, `expected` and `accepted` of each other worker that will accept a connection soon.

        See Line.is_willing. Asked for each connection by each idle worker.
        """
        if self.board.is_of_one:
            return []
        lines = enumerate(self.board.columns(COMPARED), 1)
        return [
            (queued, expected, accepted)
            for number, (state, heartbeat, lag, queued, expected, accepted) in lines
            if state in ACCEPTING
            and now - heartbeat < FRESH_SECONDS
            and lag < LAGGING_SECONDS
            and number != self.own.number
        ]
