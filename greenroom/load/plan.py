"""One run: what is sent where, how often and for how long, and what is expected of it."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import request as requests
from .arrivals import POISSON, Shape
from .engine import DEFAULT_LARGEST_BYTES, DEFAULT_TIMEOUT_SECONDS, Engine
from .expectations import Expectation
from .http2 import connection_maker
from .pacing import Closed, Open, Pacer
from .request import Maker, Prepared, Request
from .result import Facts, Result, document, now_at, route_of
from .target import Target, tls_context


@dataclass(frozen=True)
class Plan:
    """`shape` for the open model, `users` for the closed one; `moments` are planned arrivals with what each asks."""

    target: Target
    kinds: tuple[Request | Maker, ...]
    shape: Shape | None = None
    users: int = 0
    pause_seconds: float = 0.0
    length: float = 30.0
    model: str = POISSON
    seed: int = 1
    expectations: tuple[Expectation, ...] = ()
    abort_on_fail: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    connections: int = 0
    new_connections: bool = False
    follows: bool = True
    largest_bytes: int = DEFAULT_LARGEST_BYTES
    verify: bool = True
    ca_file: str = ""
    shared_headers: Mapping[str, str] = field(default_factory=dict)
    http2: bool = False
    rows: tuple[Mapping[str, object], ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)
    recorded: tuple[tuple[float, Request], ...] = ()

    @property
    def seconds(self) -> float:
        """How long requests are planned for."""
        if self.recorded:
            return max(1.0, self.recorded[-1][0])
        return self.shape.seconds if self.shape is not None else self.length

    @property
    def asked_per_second(self) -> float | None:
        if self.recorded:
            return len(self.recorded) / self.seconds
        return self.shape.mean_per_second if self.shape is not None else None

    @property
    def planned(self) -> int | None:
        """How many requests; None in the closed model, where the server's pace decides."""
        if self.recorded:
            return len(self.recorded)
        return self.shape.count if self.shape is not None else None

    def engine(self, on_second: Callable[[Engine, int], None] | None = None) -> Engine:
        """Ready to run. Raises LoadError."""
        chance = random.Random(self.seed)
        return Engine(
            self.target,
            self._pacer(chance),
            self._requests(chance),
            length=self.seconds,
            timeout_seconds=self.timeout_seconds,
            most_connections=self.connections,
            new_connections=self.new_connections,
            follows=self.follows,
            make_connection=connection_maker() if self.http2 else None,
            largest_bytes=self.largest_bytes,
            tls=tls_context(verify=self.verify, ca_file=self.ca_file, http2=self.http2) if self.target.is_tls else None,
            on_second=on_second,
        )

    def _pacer(self, chance: random.Random) -> Pacer:
        if self.recorded:
            return Open(moment for moment, _ in self.recorded)
        if self.shape is not None:
            return Open(self.shape.moments(self.model, chance))
        return Closed(self.users, self.length, self.pause_seconds)

    def _prepare(self, one: Request) -> Prepared:
        return requests.prepare(one, self.target, self.shared_headers, closes=self.new_connections)

    def _requests(self, chance: random.Random) -> Iterator[Prepared]:
        if self.recorded:
            ready: dict[int, Prepared] = {}
            return (ready.get(id(one)) or ready.setdefault(id(one), self._prepare(one)) for _, one in self.recorded)
        return requests.choices(self.kinds, self.rows, self.values, self._prepare, chance)

    def settings(self) -> dict[str, object]:
        """Return the settings that a reader of the report needs to run it again."""
        return {
            "url": self.target.origin,
            "requests": [_said(one) for one in self.kinds],
            "http2": self.http2,
            "arrivals": self.model if self.shape is not None else "recorded" if self.recorded else "closed",
            "rate": [[one.begin, one.end, one.seconds] for one in self.shape.segments] if self.shape else None,
            "users": self.users or None,
            "seconds": self.seconds,
            "timeout_seconds": self.timeout_seconds,
            "new_connections": self.new_connections,
            "connections": self.connections or None,
            "seed": self.seed,
        }


def _said(kind: Request | Maker) -> dict[str, Any]:
    if isinstance(kind, Request):
        return {"method": kind.method, "path": kind.path, "weight": kind.weight, "name": kind.name}
    return {"method": None, "path": None, "weight": kind.weight, "name": kind.name}


def hopeless(plan: Plan, engine: Engine) -> Expectation | None:
    """An expectation that cannot hold any more, however good all that is still to come may be."""
    planned = plan.planned
    if planned is None:
        return None
    tally = engine.tally
    whole = tally.whole()
    for one in plan.expectations:
        measured = route_of(one, tally, whole)
        # How many of a route are still to come is chance: at most all that are.
        if one.cannot_hold(measured, planned - whole.requests + measured.requests):
            return one
    return None


def finished(plan: Plan, engine: Engine, began_at: float, causes: Sequence[Mapping[str, Any] | None] = ()) -> Result:
    """The result of an engine that has run."""
    return document(
        Facts(
            engine.tally,
            engine.elapsed,
            engine.cpu_seconds,
            engine.unfinished,
            engine.stopped,
            plan.asked_per_second,
            plan.expectations,
            plan.settings(),
            causes,
            began_at,
        )
    )


def run(plan: Plan) -> Result:
    """Run it and return the result, without a word to anybody: for programs and tests."""
    began_at = now_at()
    engine = plan.engine()
    engine.run()
    return finished(plan, engine, began_at)
