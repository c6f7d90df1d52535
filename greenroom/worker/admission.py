"""Admission: which requests run, which wait a moment, and which are turned away before any work was done for them.

Adaptive (the default). A worker's loop is one server with one queue, so what matters is loop time: how long a request
holds the loop, all its slices together, and how much of it has been promised to requests and not run yet.

    cost      seconds of the loop that a request takes: moving average over finished ones
    load      promised and not yet run, less what the loop idled:
                  + cost             when a request is admitted
                  - slice            when one has run, up to what was promised to it
                  - rest             when it is finished and needed less
                  - idle             when the loop had nothing to do; never below 0
    admit     while load < DEPTH and the last turn of the loop was shorter than LONGEST_TURN

In the long run that admits exactly what the loop can run: rate * cost = 1 - (what hub, other greenlets and refusals
take), because only requests' slices and idling lower the load (the utilization law; with the wait W of a request it
gives the in-flight limit of Little's law, W / cost + 1, without ever looking at W). A thousand requests that wait for
a slow upstream promise little and so are all admitted; twenty that compute are not. A leaky bucket as of ATM's GCRA,
filled with work and not with cells. The length of the turn is what corrects it when promises were wrong: requests that
wake all at once, a stall, a core taken by a neighbour.

    state       when                                            a request that comes
    open        load < DEPTH, nobody waits                      runs at once
    queueing    load >= DEPTH, or somebody waits                waits in line, oldest first
    shedding    the line is as long as can be run in time       503, Retry-After: 1

How long a request may wait is CoDel's idea (Nichols and Jacobson 2012; Maurer, "Fail at Scale", 2015): a queue that has
just formed is a burst, and harmless; one that stays only makes everybody wait. So in the first moments of a queue its
requests may wait BURST times as long as later, falling with time. The line is served oldest first and kept short, not
newest first: a closed set of clients then waits alike and nobody is turned away needlessly.

Static (GREENROOM_LIMIT_REQUESTS above 0): as many requests in flight as it says; same line.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from greenlet import greenlet

from .. import clock
from .load import RequestGreenlet, plain_switch

logger = logging.getLogger("gunicorn.error")

# What may be promised before it has run. Less: each turn of the loop starts fewer requests, and with requests of
# unequal length it runs dry. More: those that are admitted wait longer for each of their slices.
DEPTH_SECONDS = 0.03
# A turn this long says that more became ready than had been promised.
LONGEST_TURN_SECONDS = 0.08
# How much longer than queue_timeout a request may wait while its queue is young.
BURST = 3.0
# A request that holds the loop for long may wait for a few like itself: two at a time is no overload.
WAIT_COSTS = 2.0
# The average: each finished request moves it by a sixteenth, and none counts for more than four times what was
# expected, or the first one, which loads half the application, would close the door behind it.
COST_SHARE = 1 / 16
MOST_COSTS = 4.0
FIRST_COST_SECONDS = 0.001
REPORT_SECONDS = 10.0
# While requests stand in line the loop turns at least this often.
QUEUE_TICK_SECONDS = 0.002
ALWAYS = ("/healthz", "/readyz")


class Gate(Protocol):
    """Open while `load` is below `limit`."""

    load: float
    limit: float
    cost: float  # of a request, in the unit of `load`

    def run(self, run: Callable[..., None], parent: greenlet, *args: Any) -> None:
        """Run a request in a new greenlet, until it first waits."""

    def turn(self, idle_seconds: float, last_turn_seconds: float) -> None:
        """A turn of the loop begins."""

    def room(self, wait_seconds: float) -> float:
        """How many requests in line can be run within that time."""


class AdaptiveGate:
    """Loop time: promised, run, idled. See above."""

    __slots__ = ("cost", "limit", "load")

    def __init__(self) -> None:
        self.load = 0.0
        self.limit = DEPTH_SECONDS
        self.cost = FIRST_COST_SECONDS

    def run(self, run: Callable[..., None], parent: greenlet, *args: Any) -> None:
        request = RequestGreenlet(run, parent)
        request.meter = self
        request.spent_seconds = 0.0
        request.promised_seconds = self.cost
        self.load += self.cost
        began = clock.now()
        plain_switch(request, *args)  # not its own: one call less in the life of every request
        self.ran(request, clock.now() - began)

    def ran(self, request: RequestGreenlet, seconds: float) -> None:
        """A slice is over."""
        request.spent_seconds = spent = request.spent_seconds + seconds
        promised = request.promised_seconds
        if request.dead:
            self.load -= promised
            cost = self.cost
            self.cost = cost + COST_SHARE * (min(spent, MOST_COSTS * cost) - cost)
        elif seconds < promised:
            self.load -= seconds
            request.promised_seconds = promised - seconds
        else:
            self.load -= promised
            request.promised_seconds = 0.0
        if self.load < 0.0:
            self.load = 0.0

    def turn(self, idle_seconds: float, last_turn_seconds: float) -> None:
        load = self.load - idle_seconds
        self.load = load if load > 0.0 else 0.0
        self.limit = DEPTH_SECONDS if last_turn_seconds < LONGEST_TURN_SECONDS else 0.0

    def room(self, wait_seconds: float) -> float:
        return wait_seconds / self.cost


class StaticGate:
    """A number of requests in flight."""

    __slots__ = ("cost", "limit", "load")

    def __init__(self, limit_requests: int) -> None:
        self.load = 0.0
        self.limit = float(limit_requests)
        self.cost = 1.0

    def run(self, run: Callable[..., None], parent: greenlet, *args: Any) -> None:
        request = RequestGreenlet(run, parent)
        request.meter = self
        self.load += 1
        request.switch(*args)

    def ran(self, request: RequestGreenlet, seconds: float) -> None:
        if request.dead:
            self.load -= 1

    def turn(self, idle_seconds: float, last_turn_seconds: float) -> None:
        pass

    def room(self, wait_seconds: float) -> float:
        return float("inf")  # how long they take is not known; their age decides


@dataclass(slots=True)
class Waiting:
    """A request in line, and until when it may stay there."""

    connection: Any
    request: Any
    until: float


class Admission:
    """The line in front of the gate. `start` runs a request, `shed` turns it away.

    Who is admitted on the fast way is not seen here: the caller compares `gate.load < gate.limit and not queue`.
    Runs on: hub.
    """

    def __init__(
        self,
        gate: Gate,
        start: Callable[[Any, Any], None],
        shed: Callable[[Any, Any], None],
        *,
        queue_limit_requests: int,
        queue_timeout_seconds: float,
        priority_paths: tuple[str, ...] = (),
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.gate = gate
        self.start = start
        self.shed = shed
        self.queue_limit_requests = queue_limit_requests
        self.queue_timeout_seconds = queue_timeout_seconds
        self.priority_paths = tuple(path.rstrip("/") for path in (*ALWAYS, *priority_paths))
        self.now = now
        self.queue: deque[Waiting] = deque()
        self.queueing_since = 0.0
        # Since the worker's start, for metrics.
        self.queued_requests = 0
        self.shed_full_requests = 0
        self.shed_late_requests = 0
        self._reported_requests = 0
        self._report_at = 0.0

    @property
    def shed_requests(self) -> int:
        return self.shed_full_requests + self.shed_late_requests

    def wait_or_shed(self, connection: Any, request: Any) -> None:
        """A request has come that can't run at once."""
        if self._has_priority(request.path):
            self.start(connection, request)
            return
        now = self.now()
        if not self.queue:
            self.queueing_since = now
        wait_seconds = self._longest_wait_seconds(now)
        if len(self.queue) >= min(self.queue_limit_requests, max(1.0, self.gate.room(wait_seconds))):
            self.shed_full_requests += 1
            self.shed(connection, request)
            return
        self.queued_requests += 1
        self.queue.append(Waiting(connection, request, now + wait_seconds))

    def release(self) -> None:
        """Run those in line who fit, oldest first; turn away who has waited too long.

        At the end of each turn: what was ready has run by then, so requests that are nearly done come before new ones.
        """
        queue, gate = self.queue, self.gate
        while queue:
            if queue[0].until < self.now():
                late = queue.popleft()
                self.shed_late_requests += 1
                self.shed(late.connection, late.request)
            elif gate.load < gate.limit:
                next_one = queue.popleft()
                self.start(next_one.connection, next_one.request)
            else:
                return

    def report(self) -> None:
        """One line in the log for all that were turned away since the last one, at most every REPORT_SECONDS."""
        now, shed = self.now(), self.shed_requests
        if shed == self._reported_requests or now < self._report_at:
            return
        logger.warning(
            "overload: %d requests turned away with 503, %d since the start (waiting %d, load %.3g of %.3g, cost %.3g)",
            shed - self._reported_requests,
            shed,
            len(self.queue),
            self.gate.load,
            self.gate.limit,
            self.gate.cost,
        )
        self._reported_requests = shed
        self._report_at = now + REPORT_SECONDS

    def _longest_wait_seconds(self, now: float) -> float:
        """How long a request that comes now may wait: the older the queue, the shorter."""
        shortest = self.queue_timeout_seconds
        if isinstance(self.gate, AdaptiveGate):
            shortest = max(shortest, WAIT_COSTS * self.gate.cost)
        return max(shortest, BURST * shortest - (now - self.queueing_since))

    def _has_priority(self, path: str) -> bool:
        return any(path == one or path.startswith(one + "/") for one in self.priority_paths)
