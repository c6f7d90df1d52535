"""Gates: how many requests one worker runs at the same time.

A worker's loop is one server with one queue, so what matters is loop time: how long a request holds the loop, all its
slices together, and how much of it has been promised to requests and not run yet.

    cost      seconds of the loop that a request takes: moving average over finished ones
    load      promised and not yet run, less what the loop idled:
                  + cost     when a request is admitted
                  - slice    when one has run, up to what was promised to it
                  - rest     when it is finished and needed less
                  - idle     when the loop had nothing to do; never below 0
    open      while load < DEPTH and the last turn of the loop was shorter than LONGEST_TURN

In the long run that admits exactly what the loop can run: rate * cost = 1 - (what hub, other greenlets and refusals
take), because only requests' slices and idling lower the load (the utilization law; with the wait W of a request it
gives the in-flight limit of Little's law, W / cost + 1, without ever looking at W). A thousand requests that wait for
a slow upstream promise little and so are all admitted; twenty that compute are not. A leaky bucket as of ATM's GCRA,
filled with work and not with cells. The length of the turn is what corrects it when promises were wrong: requests that
wake all at once, a stall, a core taken by a neighbour.

The others: a number of requests in flight (GREENROOM_LIMIT_REQUESTS), and no gate at all (GREENROOM_ADMISSION=off).
"""

from typing import Protocol

from ..settings import Settings
from .load import Running

# Work that may be promised before it has run. Less: each turn of the loop starts fewer requests, and with requests
# of unequal length it runs dry. More: those that are admitted wait longer for each of their slices.
DEPTH_SECONDS = 0.02
# A turn this long says that more became ready than had been promised.
LONGEST_TURN_SECONDS = 0.08
# The average: each finished request moves it by a share, and none counts for more than so many times what was expected.
# A single one that took 10 s (the first import of half the application) must not close the door behind it.
COST_SHARE = 1 / 32
MOST_COSTS = 6.0
FIRST_COST_SECONDS = 0.0003
NEVER = float("inf")


class Gate(Protocol):
    """Open while `load` is below `limit`."""

    load: float
    limit: float
    cost: float  # of a request, in the unit of `load`
    slices: int  # that have run

    def admit(self) -> None:
        """A request begins to run now."""

    def began(self, request: Running, seconds: float) -> None:
        """Its first slice is over, and nothing else ran meanwhile; if it is `dead`, its only one."""

    def ran(self, request: Running, seconds: float) -> None:
        """A later slice of it is over; if it is `dead`, its last."""

    def turn(self, idle_seconds: float, last_turn_seconds: float) -> None:
        """A turn of the loop begins."""


class AdaptiveGate:
    """Loop time: promised, run, idled. See above."""

    __slots__ = ("cost", "kept", "limit", "load", "share", "slices")

    def __init__(self) -> None:
        self.load = 0.0
        # By first slices in this turn. It lowers the load when the next one begins: else a turn that starts requests
        # which compute at once would start one after the other, and all that is ready besides would wait.
        self.kept = 0.0
        self.limit = DEPTH_SECONDS
        self.cost = FIRST_COST_SECONDS
        self.share = 0.5
        self.slices = 0

    def admit(self) -> None:
        self.load += self.cost

    def began(self, request: Running, seconds: float) -> None:
        self.slices += 1
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
        self.slices += 1
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


class StaticGate:
    """A number of requests in flight."""

    __slots__ = ("cost", "limit", "load", "slices")

    def __init__(self, limit_requests: int) -> None:
        self.load = 0.0
        self.limit = float(limit_requests)
        self.cost = 1.0
        self.slices = 0

    def admit(self) -> None:
        self.load += 1

    def ran(self, request: Running, seconds: float) -> None:
        self.slices += 1
        if request.dead:
            self.load -= 1

    began = ran

    def turn(self, idle_seconds: float, last_turn_seconds: float) -> None:
        """Do nothing: this gate counts requests, and time does not open it."""


class OpenGate(StaticGate):
    """No gate: every request runs at once."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0)
        self.limit = NEVER


def gate_of(settings: Settings) -> Gate:
    if settings.admission == "off":
        return OpenGate()
    return StaticGate(settings.limit_requests) if settings.limit_requests else AdaptiveGate()
