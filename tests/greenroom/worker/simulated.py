"""A worker on simulated time: an event loop, requests that compute and wait, clients who may lose their patience."""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from greenroom.worker.admission import QUEUE_TICK_SECONDS, Admission
from greenroom.worker.gates import NEVER, AdaptiveGate, Gate

from ..conftest import ManualClock

HEAD_SECONDS = 60e-6  # to accept a connection and read its request
LEAVE_SECONDS = 30e-6  # to see that a client has left
SHED_SECONDS = 20e-6
PATIENCE_SECONDS = 1.0
CAPACITY = 1 / (0.01 + HEAD_SECONDS)  # of requests that compute for 10 ms

Steps = list[tuple[str, float]]
Shape = Callable[[random.Random], Steps]


@dataclass(eq=False)
class Request:
    """The steps of one request, in order: ("compute" or "wait", seconds). Its client leaves when it loses its patience.

    A client whose leaving `is_seen` closes its connection; else nobody knows that it does not listen any more.
    """

    due: float
    steps: Steps
    path: str = "/work"
    patience: float = NEVER
    is_seen: bool = True
    budget: float = NEVER
    is_over: bool = False
    dead: bool = False
    promised_seconds: float = 0.0
    spent_seconds: float = 0.0


@dataclass
class Outcome:
    """The outcome of a request: "answered", "shed", "spent", "left" before it began, or "late": left while it ran."""

    due: float
    seconds: float
    what: str

    @property
    def is_good(self) -> bool:
        return self.what == "answered"


@dataclass
class Loop:
    """One worker: what is ready runs in its order, then those who waited in line. `core_ratio`: what it gets of one."""

    admission: Admission
    clock: ManualClock
    core_ratio: float = 1.0
    outcomes: list[Outcome] = field(default_factory=list)
    idle_seconds_with_a_line: float = 0.0
    events: list[tuple[float, int, Request, bool]] = field(default_factory=list)
    pushed: int = 0
    running: set[Request] = field(default_factory=set)
    most_running: int = 0
    on_finished: Callable[[Request], None] = lambda request: None

    def push(self, at: float, request: Request, *, leaves: bool = False) -> None:
        self.pushed += 1
        heapq.heappush(self.events, (at, self.pushed, request, leaves))

    def offer(self, requests: Iterator[Request] | Sequence[Request]) -> "Loop":
        for request in requests:
            self.push(request.due, request)
            if request.patience != NEVER and request.is_seen:
                self.push(request.due + request.patience, request, leaves=True)
        return self

    def spend(self, seconds: float) -> None:
        self.clock.advance(seconds / self.core_ratio)

    def run(self, until: float) -> "Loop":
        ended, took = self.clock.now(), 0.0
        gate, clock = self.admission.gate, self.clock
        while (self.events or self.admission.waiting) and clock.now() < until:
            following = self.events[0][0] if self.events else until
            if self.admission.waiting:
                following = min(following, clock.now() + QUEUE_TICK_SECONDS)
                self.idle_seconds_with_a_line += max(0.0, following - clock.now())
            clock.seconds = max(clock.seconds, following)
            began = clock.now()
            gate.turn(began - ended, took)
            arrivals = []
            for request, leaves in self.ready(began):
                if leaves:
                    self.leave(request)
                elif request in self.running:
                    self.step(request, gate.ran)
                else:
                    arrivals.append(request)
            for request in arrivals:
                self.arrive(request)
            self.admission.release()
            ended, took = clock.now(), clock.now() - began
        return self

    def ready(self, now: float) -> list[tuple[Request, bool]]:
        found = []
        while self.events and self.events[0][0] <= now:
            found.append(heapq.heappop(self.events)[2:])
        return found

    def arrive(self, request: Request) -> None:
        self.spend(HEAD_SECONDS)
        if request.is_over:  # its client had left before anybody read what it asked for
            return
        if self.admission.gate.load < self.admission.gate.limit and not self.admission.waiting:
            self.start(request, request)
        else:
            self.admission.wait(request, request, request.due + request.budget)

    def leave(self, request: Request) -> None:
        if not request.is_over:
            self.spend(LEAVE_SECONDS)
            waited = self.admission.leave(request)
            self.end(request, "left" if waited else "late")

    def start(self, _connection: Any, request: Request) -> None:
        self.running.add(request)
        self.most_running = max(self.most_running, len(self.running))
        self.admission.gate.admit()
        self.step(request, self.admission.gate.began)

    def step(self, request: Request, account: Callable[[Any, float], None]) -> None:
        began = self.clock.now()
        while request.steps and request.steps[0][0] == "compute":
            self.spend(request.steps.pop(0)[1])
        if request.steps:
            self.push(self.clock.now() + request.steps.pop(0)[1], request)
        else:
            request.dead = True
            self.running.discard(request)
            is_late = self.clock.now() - request.due > request.patience
            self.end(request, "late" if is_late else "answered")
        account(request, self.clock.now() - began)

    def shed(self, _connection: Any, request: Request, is_spent: bool) -> None:
        self.spend(SHED_SECONDS)
        self.end(request, "spent" if is_spent else "shed")

    def end(self, request: Request, what: str) -> None:
        if not request.is_over:
            request.is_over = True
            self.outcomes.append(Outcome(request.due, self.clock.now() - request.due, what))
            self.on_finished(request)


class World:
    """Makes loops whose time begins at 0 and ends when the test does."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.clock.seconds = 0.0

    def loop(self, gate: Gate | None = None, **settings: Any) -> Loop:
        loop: list[Loop] = []
        admission = Admission(
            gate or AdaptiveGate(),
            lambda connection, request: loop[0].start(connection, request),
            lambda connection, request, is_spent: loop[0].shed(connection, request, is_spent),
            now=self.clock.now,
            **{"patience_seconds": PATIENCE_SECONDS, "queue_limit_requests": 1000, **settings},
        )
        loop.append(Loop(admission, self.clock))
        return loop[0]


def poisson(phases: Sequence[tuple[float, float]], shape: Shape, **about: Any) -> Iterator[Request]:
    """Phases are (rate, seconds)."""
    chance = random.Random(5)
    begin = 0.0
    for rate, seconds in phases:
        due = begin + chance.expovariate(rate)
        while due < begin + seconds:
            yield Request(due, shape(chance), **about)
            due += chance.expovariate(rate)
        begin += seconds


def closed(loop: Loop, clients: int, shape: Shape, think_seconds: float = 0.0, ramp_seconds: float = 0.0) -> Loop:
    """So many clients, who come within `ramp_seconds`; each asks again a moment after its answer."""
    chance = random.Random(5)

    def ask_again(_request: Request) -> None:
        due = loop.clock.now() + chance.uniform(0, 2 * think_seconds)
        loop.push(due, Request(due, shape(chance)))

    loop.on_finished = ask_again
    for number in range(clients):
        due = number / clients * ramp_seconds + chance.uniform(0, 2 * think_seconds)
        loop.push(due, Request(due, shape(chance)))
    return loop


def percentile(values: Sequence[float], percent: float) -> float:
    return sorted(values)[int(percent / 100 * len(values))]
