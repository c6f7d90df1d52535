"""Admission: which requests run at once, which wait in line, and in which order; hardly any are turned away.

A request that finds the gate closed (see gates) waits in line. Whether that does harm depends on the clients:

    those who wait for their answers       the line is as long as there are clients, and in order each gets its turn.
    before they ask again                  A client that is turned away or overtaken loses; none gains
    those who don't, or who give up        more come than can be served, so the line grows until they leave. In order,
                                           all would be served when they are about to leave, and their answers be
                                           late: the collapse of a queue without a bound

So the line is in order until it is seen to grow without end:

    pace      seconds between two that leave the line through the gate: moving average while somebody waits
    short     SHORT_SHARE * patience / pace: how many get their turn while their clients still wait for sure
    growing   for GROWING_SECONDS after the line was longer than ever since it was empty, or half as long as it has not
              been empty, up to LEFT_SECONDS; and for LEFT_SECONDS after a client left it

    state               next is                                a newcomer
    not growing         the oldest                             goes to the end
    growing, short      the oldest                             goes to the end
    growing, longer     the oldest of the newest `short`;      goes to the end, and the first of these `short` is passed
                        if there are none, the newest of       over
                        those that were passed over, unless
                        it is late (see LATE_SHARE)

At r times what can be served, the next one has then waited for SHORT_SHARE * patience / r, whatever r is, and all the
server does is for clients who still wait. When the line has stopped growing, those who were passed over come first
again, the oldest before all. It is adaptive LIFO (Maurer, "Fail at Scale", ACM Queue 2015) with a queue that is first
in, first out within; where that sheds by the age of a request (CoDel, Nichols and Jacobson 2012), here the client
leaves, or has a reason to wait. A single client who asks again and again thus can't make others wait for ever, and a
closed set of 200, whose line is ten times what patience allows, is served in turn as any plain server would.

Turned away with 503 is only

    who was passed over for longest      when more than GREENROOM_QUEUE_LIMIT_REQUESTS wait, and more than could be
                                         served within patience
    whose budget ends in line            with 504

Chosen by simulation (tests/greenroom/worker/test_admission.py: Poisson arrivals at 0.9 to 10 times the capacity, sets
of 6 to 200 clients; 2 to 100 ms of computing before, after and round a wait) and measured with `python -m
benchmarks.overload`.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import clock
from .gates import MOST_COSTS, NEVER, Gate

logger = logging.getLogger("gunicorn.error")

# How much of their patience clients spend in line at most; the rest is for the answer itself.
SHORT_SHARE = 0.45
FEWEST_SHORT = 2
# A request that was passed over and has waited for longer is answered as its client is about to leave. If one left
# lately, after less than IMPATIENT times the patience expected, it is not begun; a later one gets its turn then.
LATE_SHARE = 0.6
IMPATIENT = 1.5
# How long it may take until the next sign that the line has no end. While nobody leaves yet each newcomer is one.
# Later, at 1.02 times a capacity of 100 requests a second, a client leaves twice a second. And when a closed set of
# clients has made its line, so long some of them are still overtaken.
GROWING_SECONDS = 0.5
LEFT_SECONDS = 2.0
# The pace is known after so many; each of the last PACE_REQUESTS or so counts.
FIRST_PACE_REQUESTS = 8
PACE_REQUESTS = 64
SHORTEST_PACE_SECONDS = 1e-6
# How often the whole line is looked through.
LOOK_SECONDS = 0.1
REPORT_SECONDS = 10.0
# While requests stand in line the loop turns at least this often.
QUEUE_TICK_SECONDS = 0.002
ALWAYS = ("/healthz", "/readyz")


@dataclass(slots=True)
class Waiting:
    """A request in line since `since`; at `until` its budget ends."""

    connection: Any
    request: Any
    since: float
    until: float


class Pace:
    """Seconds between two that leave the line, on average over the last PACE_REQUESTS; None: not known yet."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._passed = self._count = 0.0
        self._last_at = 0.0

    def begin(self, now: float) -> None:
        """Somebody waits, and nobody did."""
        self._last_at = now

    def left(self, now: float) -> None:
        passed, self._last_at = now - self._last_at, now
        if self.seconds is not None:
            passed = min(passed, MOST_COSTS * self.seconds)
        memory = 1 - 1 / PACE_REQUESTS
        self._passed, self._count = memory * self._passed + passed, memory * self._count + 1
        if self.seconds is not None or self._count > FIRST_PACE_REQUESTS - 1:
            self.seconds = max(self._passed / self._count, SHORTEST_PACE_SECONDS)

    def requests_in(self, seconds: float) -> float:
        return NEVER if self.seconds is None else seconds / self.seconds


class Admission:
    """The line in front of the gate.

    `start` runs a request; `shed` turns it away, for it can't be served (False) or its budget is over (True).

    Requests admitted on the fast way are not seen here: the caller compares `gate.load < gate.limit and not waiting`.
    Runs on: hub.
    """

    def __init__(
        self,
        gate: Gate,
        start: Callable[[Any, Any], None],
        shed: Callable[[Any, Any, bool], None],
        *,
        patience_seconds: float,
        queue_limit_requests: int,
        priority_paths: tuple[str, ...] = (),
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.gate = gate
        self.start = start
        self.shed = shed
        self.patience_seconds = patience_seconds
        self.queue_limit_requests = queue_limit_requests
        self.priority_paths = tuple(path.rstrip("/") for path in (*ALWAYS, *priority_paths))
        self.now = now
        self.pace = Pace()
        self.waiting = 0
        # Both by connection, in the order in which they came; all who were passed over came before all in line.
        self.line: OrderedDict[Any, Waiting] = OrderedDict()
        self.passed_over: OrderedDict[Any, Waiting] = OrderedDict()
        self._began_at = 0.0
        self._longest = 0
        self._grows_until = self._impatient_until = 0.0
        self._look_at = 0.0
        # Since the worker's start, for metrics.
        self.queued_requests = 0
        self.left_requests = 0
        self.shed_requests = 0
        self.spent_requests = 0
        self._reported = (0, 0)
        self._report_at = 0.0

    @property
    def lost_requests(self) -> int:
        """Those that were not run because too many came."""
        return self.shed_requests + self.left_requests

    @property
    def line_seconds(self) -> float:
        """About how long those in line wait until the last of them has its turn."""
        return self.waiting * (self.pace.seconds or 0.0)

    def wait(self, connection: Any, request: Any, until: float = NEVER) -> None:
        """A request has come that can't run at once. It waits until somebody calls `release`."""
        if self.has_priority(request.path):
            self.start(connection, request)
            return
        now = self.now()
        if not self.waiting:
            self._began_at = now
            self.pace.begin(now)
        self.queued_requests += 1
        self.waiting += 1
        self.line[connection] = Waiting(connection, request, now, until)
        if self.waiting > self._longest:
            self._longest = self.waiting
            age = now - self._began_at
            self._grows_until = max(self._grows_until, now + min(max(GROWING_SECONDS, age / 2), LEFT_SECONDS))
        if len(self.line) > self._short_requests() and self.is_growing(now):
            _, first = self.line.popitem(last=False)
            self.passed_over[first.connection] = first
        if self.waiting > self._most_requests():
            self.shed_requests += 1
            self._grows_until = now + LEFT_SECONDS
            self._turn_away(next(iter((self.passed_over or self.line).values())))

    def find(self, connection: Any) -> Waiting | None:
        return self.line.get(connection) or self.passed_over.get(connection)

    def leave(self, connection: Any) -> bool:
        """The client of a request in line has left; False if it was not in line."""
        waiting, now = self.find(connection), self.now()
        if waiting is None:
            return False
        self._remove(connection)
        self.left_requests += 1
        self._grows_until = now + LEFT_SECONDS
        if now - waiting.since < IMPATIENT * self.patience_seconds:
            self._impatient_until = now + LEFT_SECONDS
        return True

    def turn_away_all(self) -> None:
        """Turn away all that wait in line: the worker ends."""
        while self.waiting:
            self.shed_requests += 1
            self._turn_away(next(iter((self.passed_over or self.line).values())))

    def release(self) -> None:
        """Run the requests in line for which there is room; turn away those that can't be served in time any more.

        At the end of each turn: what was ready has run by then, so requests that are nearly done come before new ones.
        """
        gate = self.gate
        now = self.now()
        if now >= self._look_at:
            self._look(now)
        while self.waiting and gate.load < gate.limit:
            following = self._next(now)
            if following is None:
                return
            self._remove(following.connection)
            self.start(following.connection, following.request)
            now = self.now()
            self.pace.left(now)

    def is_growing(self, now: float) -> bool:
        """Whether more comes than can be served: see above."""
        return now < self._grows_until

    def has_priority(self, path: str) -> bool:
        return any(path == one or path.startswith(one + "/") for one in self.priority_paths)

    def report(self) -> None:
        """One line in the log for all who were lost since the last one, at most every REPORT_SECONDS."""
        now, lost = self.now(), (self.shed_requests, self.left_requests)
        if lost == self._reported or now < self._report_at:
            return
        logger.warning(
            "overload: %d requests turned away with 503, %d since the start; %d clients left before their turn, "
            "%d since the start (waiting %d, load %.3g of %.3g, cost %.3g)",
            self.shed_requests - self._reported[0],
            self.shed_requests,
            self.left_requests - self._reported[1],
            self.left_requests,
            self.waiting,
            self.gate.load,
            self.gate.limit,
            self.gate.cost,
        )
        self._reported = lost
        self._report_at = now + REPORT_SECONDS

    def _next(self, now: float) -> Waiting | None:
        if self.passed_over and not self.is_growing(now):
            self.passed_over.update(self.line)
            self.line, self.passed_over = self.passed_over, OrderedDict()
        if self.line:
            return next(iter(self.line.values()))
        newest = next(reversed(self.passed_over.values()))
        is_late = now - newest.since > LATE_SHARE * self.patience_seconds
        return None if is_late and now < self._impatient_until else newest

    def _look(self, now: float) -> None:
        self._look_at = now + LOOK_SECONDS
        for waiting in (*self.passed_over.values(), *self.line.values()):
            if waiting.until <= now:
                self.spent_requests += 1
                self._turn_away(waiting, is_spent=True)

    def _turn_away(self, waiting: Waiting, *, is_spent: bool = False) -> None:
        self._remove(waiting.connection)
        self.shed(waiting.connection, waiting.request, is_spent)

    def _remove(self, connection: Any) -> bool:
        if self.line.pop(connection, None) is None and self.passed_over.pop(connection, None) is None:
            return False
        self.waiting -= 1
        if not self.waiting:
            self._longest = 0
        return True

    def _short_requests(self) -> float:
        return max(FEWEST_SHORT, self.pace.requests_in(SHORT_SHARE * self.patience_seconds))

    def _most_requests(self) -> float:
        limit = self.queue_limit_requests
        return limit if self.pace.seconds is None else max(limit, self.pace.requests_in(self.patience_seconds))
