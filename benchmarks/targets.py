"""The targets of our worker beside the others, and whether a run has reached them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .peers import BARE, BASELINE, DATABASE, DICT, FAN_OUT, HELLO, OURS, PEERS, SESSION, Route
from .stats import Round


@dataclass(frozen=True)
class Target:
    """On `route` we want at least `times` the requests per second of `peer`. An aim is hoped for, not promised."""

    route: Route
    peer: str
    times: float
    is_aim: bool = False


TARGETS = (
    Target(HELLO, BASELINE, 3.0),
    Target(HELLO, "gevent_pywsgi", 2.0),
    Target(DICT, BASELINE, 1.7),
    Target(DICT, "uvicorn", 1.0, is_aim=True),
    Target(SESSION, BASELINE, 2.5),
    Target(SESSION, "uvicorn", 1.0),
    Target(SESSION, "uvicorn", 1.25, is_aim=True),
    Target(BARE, BASELINE, 2.5),
    Target(BARE, "uvicorn", 1.0),
    Target(FAN_OUT, "uvicorn", 1.0, is_aim=True),
    Target(DATABASE, BASELINE, 1.5),
    Target(DATABASE, "uvicorn", 1.0),
)


@dataclass(frozen=True)
class Verdict:
    """The result for one target.

    `ratio` is that of the medians, and decides; `lowest` and `highest` are the ratios within a round. `per_cpu_second`
    compares requests by the CPU time that the servers got: where other programs take their share of the core, that is
    the number to look at, and where none does it is the same.
    """

    target: Target
    ratio: float
    lowest: float
    highest: float
    per_cpu_second: float

    @property
    def is_reached(self) -> bool:
        return self.ratio >= self.target.times

    def sentence(self) -> str:
        target = self.target
        return (
            f"{target.route.name}: {self.ratio:.2f} times {PEERS[target.peer].label(target.route)}, "
            f"{self.lowest:.2f} to {self.highest:.2f} in the rounds, {self.per_cpu_second:.2f} by CPU time "
            f"({'aim' if target.is_aim else 'target'}: {target.times:g}): {'' if self.is_reached else 'not '}reached"
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "route": self.target.route.name,
            "server": OURS,
            "against": PEERS[self.target.peer].label(self.target.route),
            "at_least": self.target.times,
            "is_aim": self.target.is_aim,
            "ratio": self.ratio,
            "lowest_in_a_round": self.lowest,
            "highest_in_a_round": self.highest,
            "per_cpu_second": self.per_cpu_second,
            "is_reached": self.is_reached,
            "sentence": self.sentence(),
        }


def judge(target: Target, rounds: Sequence[Round]) -> Verdict | None:
    """None where one of the two was not measured, or did nothing in some round."""
    route = target.route.name
    ours = {one.number: one for one in rounds if (one.route, one.server) == (route, OURS)}
    label = PEERS[target.peer].label(target.route)
    theirs = {one.number: one for one in rounds if (one.route, one.server) == (route, label)}
    if not all(one.completed and one.server_cpu_ratio for one in (*ours.values(), *theirs.values())):
        return None
    in_rounds = [ours[n].requests_per_second / theirs[n].requests_per_second for n in ours.keys() & theirs.keys()]
    if not in_rounds:
        return None
    return Verdict(
        target,
        ratio=median_rate(ours.values()) / median_rate(theirs.values()),
        lowest=min(in_rounds),
        highest=max(in_rounds),
        per_cpu_second=median_rate_by_cpu(ours.values()) / median_rate_by_cpu(theirs.values()),
    )


def median_rate(rounds: Iterable[Round]) -> float:
    return median(one.requests_per_second for one in rounds)


def median_rate_by_cpu(rounds: Iterable[Round]) -> float:
    """Requests for each second of CPU that the server's processes got."""
    return median(one.requests_per_second / one.server_cpu_ratio for one in rounds)
