"""Sharing: each worker gets the requests that it can serve as well as the others, whoever accepted whose connection.

A connection stays where it was accepted, and brings its requests there. So workers look at each other's work twice:

    when a connection comes    the one that expects the fewest requests takes it (see balance.Turn)
    every two seconds or so    the one that has too many gives connections away: the next answers on so many of them say
                               `Connection: close`, and their clients come back to somebody else

    rate       requests a second, over RATE_SECONDS
    each       requests a second that a connection of this server brings on average, of all workers
    expected   rate + each * (connections accepted lately: what they bring has not shown yet) + IDLE * connections

To be given away, in connections, the larger one of

    line       line - mean of the lines, of me and of those whose line is less than half of mine
    requests   active * (1 - mean / rate), the mean being that of me and those without a line, if rate > UNEVEN_RATIO *
               least and rate - mean is more than chance explains (SURE standard deviations of a Poisson count); at
               most active * (1 - least / rate), so that the taker does not have more than me afterwards

where `active` connections have asked something while it was measured: for MEASURED_SECONDS, and for twice, four and
eight times as long while chance explains what is seen. After giving, SETTLE_SECONDS pass until the next measuring: who
is served elsewhere by then is not counted twice. A new worker, after TTIN, a reload or
the end of another, is one without requests; so is one whose loop stood still, when it turns again.

At start nobody accepts until all have come, or for twice as long as its own start took: clients that wait already would
all connect to the first.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import clock
from .balance import ACCEPTING, Line, Scoreboard

# After giving, until clients have come back elsewhere.
SETTLE_SECONDS = 1.0
MEASURED_SECONDS = 1.0
LONGEST_MEASURED_SECONDS = 8.0
RATE_SECONDS = 1.0
IDLE_PER_SECOND = 0.1
UNEVEN_RATIO = 1.2
SURE = 2.0
# A shorter line is chance.
SHORTEST_LINE = 2.0
LINE_SECONDS = 0.5
# A worker that starts with others waits for them twice as long as its own start took, within these bounds.
START_RATIO = 2.0
SHORTEST_START_SECONDS, LONGEST_START_SECONDS = 3.0, 10.0


@dataclass
class Work:
    """The work of one worker: requests a second, and how many wait in its line."""

    rate: float
    line: float


def surplus(mine: Work, others: list[Work], active: int, seconds: float) -> int:
    """How many connections to give away. `others` are willing to take them; rates were measured over `seconds`."""
    by_line = by_requests = 0
    shorter = [other.line for other in others if other.line < mine.line / 2]
    if shorter and mine.line >= SHORTEST_LINE:
        by_line = int(mine.line - mean([mine.line, *shorter]))
    rates = [mine.rate, *(other.rate for other in others if other.line < 1.0)]
    fair, least = mean(rates), min(rates)
    is_chance = (mine.rate - fair) * seconds <= SURE * math.sqrt(mine.rate * seconds)
    if mine.rate > UNEVEN_RATIO * least and not is_chance:
        by_requests = min(round(active * (1 - fair / mine.rate)), int(active * (1 - least / mine.rate)))
    return max(by_line, by_requests)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


class Sharing:
    """One worker's part. `asked` are the connections that have asked something, by identity, since it was cleared.

    Runs on: hub.
    """

    def __init__(
        self,
        board: Scoreboard,
        own: Line,
        asked: set[int],
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.board = board
        self.own = own
        self.asked = asked
        self.now = now
        # How many connections are still to be given away.
        self.to_give = 0
        self.given = 0  # since the worker's start
        self.each_per_second = IDLE_PER_SECOND
        self._rate = self._recent = self._line = 0.0
        self._beat_at = self._since = now()
        self._look_after = MEASURED_SECONDS
        self._counted: dict[int, tuple[float, float]] | None = None  # line -> (pid, requests) when measuring began
        self._fleet: dict[int, tuple[float, float]] = {}
        self._fleet_rate = 0.0
        self._own_requests = own.requests

    def accepted(self) -> None:
        """A connection was accepted just now."""
        self._recent += 1.0
        self.own.expected += self.each_per_second + IDLE_PER_SECOND

    def gives_away(self) -> bool:
        """Whether the connection that is being answered is to be given away."""
        if not self.to_give:
            return False
        self.to_give -= 1
        self.given += 1
        return True

    def beat(self, queued: int) -> None:
        """Tell the others what I expect; look at theirs from time to time. With each heartbeat."""
        now = self.now()
        passed, self._beat_at = now - self._beat_at, now
        if passed <= 0.0:
            return
        own = self.own
        fading = math.exp(-passed / RATE_SECONDS)
        requests, self._own_requests = own.requests - self._own_requests, own.requests
        self._rate = fading * self._rate + (1 - fading) * requests / passed
        self._recent = min(fading * self._recent, own.connections)
        self._line += (1 - math.exp(-passed / LINE_SECONDS)) * (queued - self._line)
        self._look_at_fleet(passed, fading)
        own.queued = self._line
        own.expected = self._rate + self.each_per_second * self._recent + IDLE_PER_SECOND * own.connections
        self._measure(now)

    def _look_at_fleet(self, passed: float, fading: float) -> None:
        before, self._fleet, connections = self._fleet, {}, 0.0
        came = 0.0
        for line in self.board:
            pid, requests = self._fleet[line.number] = (line.pid, line.requests)
            known = before.get(line.number)
            if known is not None and known[0] == pid:
                came += max(0.0, requests - known[1])
            connections += line.connections
        self._fleet_rate = fading * self._fleet_rate + (1 - fading) * came / passed
        self.each_per_second = max(IDLE_PER_SECOND, self._fleet_rate / max(connections, 1.0))

    def _measure(self, now: float) -> None:
        passed = now - self._since
        if self._counted is None and passed >= SETTLE_SECONDS:
            self.to_give = 0  # whoever has not asked meanwhile brings nothing
            self.asked.clear()
            self._counted, self._since, self._look_after = dict(self._fleet), now, MEASURED_SECONDS
        elif self._counted is not None and passed >= self._look_after:
            self.to_give = self._decide(self._counted, passed, now)
            self._look_after *= 2
            if self.to_give or self._look_after > LONGEST_MEASURED_SECONDS:
                self._counted, self._since = None, now

    def _decide(self, counted: dict[int, tuple[float, float]], seconds: float, now: float) -> int:
        if self.own.state not in ACCEPTING:
            return 0
        others = [line for line in self.board.siblings(self.own) if line.is_willing(now)]
        if not others:
            return 0

        def work(line: Any) -> Work:
            pid, before = counted.get(line.number, (0.0, 0.0))
            since = line.requests - before if pid == line.pid else line.requests
            return Work(max(0.0, since) / seconds, line.queued)

        return surplus(work(self.own), [work(line) for line in others], len(self.asked), seconds)


def may_start(board: Scoreboard, own: Line, workers: int, waited_seconds: float, started_seconds: float) -> bool:
    """Whether a worker that has started, in `started_seconds`, accepts now or waits for the others.

    1. another one has accepted connections: the server runs
    2. as many serve as there are to be
    3. it has waited for long enough: others need longer, or fail
    """
    longest = min(max(START_RATIO * started_seconds, SHORTEST_START_SECONDS), LONGEST_START_SECONDS)
    others = list(board.siblings(own))
    serving = 1 + sum(line.state in ACCEPTING for line in others)
    return any(line.accepted for line in others) or serving >= workers or waited_seconds >= longest
