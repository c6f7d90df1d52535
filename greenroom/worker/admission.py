"""Admission: which requests run, which wait a moment, and which are turned away before any work was done for them.

Adaptive (the default). A worker's loop is one server with one queue, so what matters is loop time: how long a request
holds the loop, all its slices together, and how much of it has been promised to requests and not run yet.

    cost      seconds of the loop that a request takes: moving average over finished ones
    load      promised and not yet run, less what the loop idled:
                  + cost     when a request is admitted
                  - slice    when one has run, up to what was promised to it
                  - rest     when it is finished and needed less
                  - idle     when the loop had nothing to do; never below 0
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
just formed is a burst, and harmless; one that stays only makes everybody wait. So there is slack, which shrinks while
somebody waits and grows while nobody does, and with it a request may wait up to BURST times as long as without. The
line is served oldest first and kept short, not newest first: a closed set of clients then waits alike and nobody is
turned away needlessly.

A line is also no overload because a few requests compute for long, or because the loop was held up. So patience is at
least WAIT_COSTS times what a request takes and WAIT_TURNS times the longest turn of late; and who is late in a line
that is short is served nevertheless. Clients who wait for their answers before they ask again (a browser, Locust, wrk)
make such lines and no longer ones; those who don't (the internet) do.

Chosen by simulation (tests/greenroom/worker/test_admission.py; Poisson arrivals at 0.9 to 10 times the capacity; 10 ms
of computing before, after and round a wait of 50 or 500 ms) and measured with `python -m benchmarks.overload`.

Static (GREENROOM_LIMIT_REQUESTS above 0): as many requests in flight as it says; same line.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .. import clock
from .load import Running

logger = logging.getLogger("gunicorn.error")

# What may be promised before it has run. Less: each turn of the loop starts fewer requests, and with requests of
# unequal length it runs dry. More: those that are admitted wait longer for each of their slices.
DEPTH_SECONDS = 0.02
# A turn this long says that more became ready than had been promised.
LONGEST_TURN_SECONDS = 0.08
# How much longer than queue_timeout a request may wait while its queue is young.
BURST = 2.0
# Where requests hold the loop for long, one may wait for a few like itself: two at a time is no overload. Nor is one
# turn of the loop that is longer than the timeout, as requests that need much more than the average make it.
WAIT_COSTS = 10.0
WAIT_TURNS = 4.0
TURN_MEMORY_SECONDS = 2.0
# A line of so many is not too long by its length, only by how long its first has waited: a page that asks for a dozen
# things at once, a board that fetches from its own server.
SHORTEST_LINE = 20.0
# Who waited too long in a line that is shorter than this, in shares of what can be run in the time that one may wait,
# was held up (a stall, some requests that compute for long) and is served nevertheless, up to so much too late.
LONG_LINE = 0.5
MOST_LATE_SECONDS = 2.0
# The average: each finished request moves it by a share, and none counts for more than so many times what was expected.
# A single one that took 10 s (the first import of half the application) must not close the door behind it.
COST_SHARE = 1 / 32
MOST_COSTS = 6.0
FIRST_COST_SECONDS = 0.0003
REPORT_SECONDS = 10.0
# While requests stand in line the loop turns at least this often.
QUEUE_TICK_SECONDS = 0.002
ALWAYS = ("/healthz", "/readyz")


class Gate(Protocol):
    """Open while `load` is below `limit`."""

    load: float
    limit: float
    cost: float  # of a request, in the unit of `load`

    def admit(self) -> None:
        """A request begins to run now."""

    def began(self, request: Running, seconds: float) -> None:
        """Its first slice is over, and nothing else ran meanwhile; if it is `dead`, its only one."""

    def ran(self, request: Running, seconds: float) -> None:
        """A later slice of it is over; if it is `dead`, its last."""

    def turn(self, idle_seconds: float, last_turn_seconds: float) -> None:
        """A turn of the loop begins."""

    def patience_seconds(self, at_least: float) -> float:
        """How long a request may wait in a queue that stays."""

    def room(self, wait_seconds: float) -> float:
        """How many requests in line can begin within that time."""

    def is_overloaded(self, line_requests: int, wait_seconds: float) -> bool:
        """Whether so long a line says that more comes than can be run, and not only that it was held up."""


class AdaptiveGate:
    """Loop time: promised, run, idled. See above."""

    __slots__ = ("cost", "kept", "limit", "load", "longest_turn", "share")

    def __init__(self) -> None:
        self.load = 0.0
        # By first slices in this turn. It lowers the load when the next one begins: else a turn that starts requests
        # which compute at once would start one after the other, and all that is ready besides would wait.
        self.kept = 0.0
        self.limit = DEPTH_SECONDS
        self.cost = FIRST_COST_SECONDS
        self.share = 0.5
        self.longest_turn = 0.0

    def admit(self) -> None:
        self.load += self.cost

    def began(self, request: Running, seconds: float) -> None:
        promised = self.cost  # as it was when the request was admitted: nothing else has run since
        if request.dead:
            self.kept += promised
            self._learn(seconds)
            return
        request.spent_seconds = seconds
        left = promised - seconds
        request.promised_seconds = left = left if left > 0.0 else 0.0
        self.kept += promised - left

    def ran(self, request: Running, seconds: float) -> None:
        promised = request.promised_seconds
        request.spent_seconds = spent = request.spent_seconds + seconds
        left = promised - seconds
        if request.dead:
            self._learn(spent)
            left = 0.0
        request.promised_seconds = left = left if left > 0.0 else 0.0
        load = self.load - promised + left
        self.load = load if load > 0.0 else 0.0

    def _learn(self, spent: float) -> None:
        cost = self.cost
        most = MOST_COSTS * cost
        share = self.share
        if share > COST_SHARE:
            self.share = share / (1 + share)  # 1/2, 1/3, ...: the plain average of the first ones
        self.cost = cost + share * ((spent if spent < most else most) - cost)

    def turn(self, idle_seconds: float, last_turn_seconds: float) -> None:
        load = self.load - self.kept - idle_seconds
        self.load = load if load > 0.0 else 0.0
        self.kept = 0.0
        self.limit = DEPTH_SECONDS if last_turn_seconds < LONGEST_TURN_SECONDS else 0.0
        longest = self.longest_turn * (1.0 - min((idle_seconds + last_turn_seconds) / TURN_MEMORY_SECONDS, 1.0))
        self.longest_turn = longest if longest > last_turn_seconds else last_turn_seconds

    def patience_seconds(self, at_least: float) -> float:
        return max(at_least, WAIT_COSTS * self.cost, WAIT_TURNS * self.longest_turn)

    @property
    def is_learning(self) -> bool:
        """Whether it has seen only a worker's first requests, which import and connect and are like no others."""
        return self.share > COST_SHARE

    def room(self, wait_seconds: float) -> float:
        return float("inf") if self.is_learning else wait_seconds / self.cost

    def is_overloaded(self, line_requests: int, wait_seconds: float) -> bool:
        return not self.is_learning and line_requests * self.cost > LONG_LINE * wait_seconds


class StaticGate:
    """A number of requests in flight."""

    __slots__ = ("cost", "limit", "load")

    def __init__(self, limit_requests: int) -> None:
        self.load = 0.0
        self.limit = float(limit_requests)
        self.cost = 1.0

    def admit(self) -> None:
        self.load += 1

    def ran(self, request: Running, seconds: float) -> None:
        if request.dead:
            self.load -= 1

    began = ran

    def turn(self, idle_seconds: float, last_turn_seconds: float) -> None:
        """Time changes nothing here."""

    def patience_seconds(self, at_least: float) -> float:
        return at_least

    def room(self, wait_seconds: float) -> float:
        return float("inf")  # how long they take is not known; their age decides

    def is_overloaded(self, line_requests: int, wait_seconds: float) -> bool:
        return True


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
        # How much longer than usual requests may wait, in shares of what is usual: grows while nobody waits, shrinks
        # while somebody does. In shares, so that a worker that learns what its requests take has slack for them.
        self.slack = BURST - 1
        self._slack_at = now()
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
        wait_seconds = self._longest_wait_seconds(now)
        if len(self.queue) >= min(self.queue_limit_requests, max(SHORTEST_LINE, self.gate.room(wait_seconds))):
            self.shed_full_requests += 1
            self.shed(connection, request)
            return
        self.queued_requests += 1
        self.queue.append(Waiting(connection, request, now + wait_seconds))

    def release(self, lag_seconds: float) -> None:
        """Run those in line who fit, oldest first; turn away who has waited too long.

        At the end of each turn: what was ready has run by then, so requests that are nearly done come before new ones.
        The turn in which nobody could look at the line does not count as waiting: after a stall there is a server again
        that has time for them.
        """
        queue, gate = self.queue, self.gate
        # Asked while the queue is what it was since the last look.
        wait_seconds = self._longest_wait_seconds(self.now())
        while queue:
            late_seconds = self.now() - queue[0].until - lag_seconds
            if late_seconds > 0 and (late_seconds > MOST_LATE_SECONDS or gate.is_overloaded(len(queue), wait_seconds)):
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
        """How long a request that comes now may wait. Also keeps `slack`."""
        shortest = self.gate.patience_seconds(self.queue_timeout_seconds)
        passed, self._slack_at = now - self._slack_at, now
        change = passed / shortest
        slack = self.slack - change if self.queue else self.slack + change
        self.slack = slack = min(max(slack, 0.0), BURST - 1)
        return shortest * (1 + slack)

    def _has_priority(self, path: str) -> bool:
        return any(path == one or path.startswith(one + "/") for one in self.priority_paths)
