"""Open-loop load: requests come when they come, whatever became of those before.

The generator is that of `greenroom load`: Poisson arrivals, latency from the planned moment. Here each single outcome
is kept, since the benchmarks look at stretches of a run. A request that has no whole answer after `give_up_seconds`
closes its connection, as a person or a proxy would.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from greenroom.load import request, target
from greenroom.load.arrivals import POISSON, Segment, Shape
from greenroom.load.engine import Engine
from greenroom.load.pacing import Open
from greenroom.load.tally import GOOD, SHED, TIMED_OUT, Tally

from .stats import percentile

GAVE_UP = "gave up"


@dataclass(frozen=True)
class Phase:
    """So many requests a second, for so long."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request. `due` is counted from the beginning of the run."""

    due: float
    seconds: float
    result: int | str  # the answer's status, or why there was none


@dataclass
class Run:
    """All outcomes, in the order in which the requests were due."""

    outcomes: list[Outcome] = field(default_factory=list)
    cpu_ratio: float = 0.0
    latest_seconds: float = 0.0  # how late the generator was at worst
    connections: int = 0

    def between(self, begin: float, end: float) -> "Slot":
        return Slot(end - begin, [one for one in self.outcomes if begin <= one.due < end])


@dataclass
class Slot:
    """The requests that were due in some stretch of time."""

    seconds: float
    outcomes: list[Outcome]

    @property
    def good(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.result == 200]

    @property
    def offered_per_second(self) -> float:
        return len(self.outcomes) / self.seconds

    @property
    def good_per_second(self) -> float:
        return len(self.good) / self.seconds

    @property
    def shed_ratio(self) -> float:
        return self.count(503) / len(self.outcomes) if self.outcomes else 0.0

    @property
    def good_ratio(self) -> float:
        return len(self.good) / len(self.outcomes) if self.outcomes else 1.0

    def count(self, result: int | str) -> int:
        return sum(one.result == result for one in self.outcomes)

    def milliseconds(self, percent: float, result: int = 200) -> float:
        return percentile([one.seconds * 1000 for one in self.outcomes if one.result == result], percent)


class Outcomes(Tally):
    """Keeps what became of each request, and counts nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Outcome] = []

    def ended(self, route: str, due: float, moment: float, outcome: str, received_bytes: int) -> None:
        self.kept.append(Outcome(due, moment - due, _result(outcome)))


def _result(outcome: str) -> int | str:
    if outcome.startswith("status "):
        return int(outcome.removeprefix("status "))
    return {GOOD: 200, SHED: 503, TIMED_OUT: GAVE_UP}.get(outcome, outcome)


class OpenLoop:
    """Runs the phases, one after the other without a pause. `keeps_connections`: otherwise each request has its own."""

    def __init__(
        self,
        host: str,
        port: int,
        path: str,
        phases: Sequence[Phase],
        *,
        give_up_seconds: float = 1.0,
        keeps_connections: bool = True,
        chance: random.Random | None = None,
    ) -> None:
        there = target.resolved(target.parse(f"http://{host}:{port}{path}"))
        asked = request.prepare(request.Request("GET", there.path), there, {}, closes=not keeps_connections)
        shape = Shape(tuple(Segment(phase.rate, phase.rate, phase.seconds) for phase in phases))
        self.outcomes = Outcomes()
        self.engine = Engine(
            there,
            Open(shape.moments(POISSON, chance or random.Random(1))),
            iter(lambda: asked, None),
            length=None,
            timeout_seconds=give_up_seconds,
            new_connections=not keeps_connections,
            follows=False,
            tally=self.outcomes,
        )

    def run(self) -> Run:
        cpu_before = time.process_time()
        self.engine.run()
        return Run(
            sorted(self.outcomes.kept, key=lambda one: one.due),
            (time.process_time() - cpu_before) / self.engine.elapsed,
            self.outcomes.lateness.largest,
            self.outcomes.connections,
        )
