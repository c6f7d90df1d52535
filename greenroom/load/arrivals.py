"""When requests are due: a rate that may change over time, and arrivals of that rate.

With L(t) the number of requests due until t (the integral of the rate), the n arrivals of a run are at

    constant   t_k = L^-1(k + 1/2)           k = 0 .. n - 1
    Poisson    t_k = L^-1(n * u_k)           u_k the k-th smallest of n uniform random numbers

Given their number, the arrivals of a Poisson process are n independent uniform points, so this is one whose number
is exactly what was asked for. The ordered u_k are made one after the other: 1 - u_(k+1) = (1 - u_k) * U^(1 / (n - k)).
"""

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .units import LoadError, rate, seconds

POISSON, CONSTANT = "poisson", "constant"
MODELS = (POISSON, CONSTANT)
_RAMP = re.compile(r"(?P<low>[^\s]+?)\.\.(?P<high>[^\s]+)\s+(?:over|in)\s+(?P<length>\S+)")
_STEPS = re.compile(r"(?P<rates>[^\s]+(?:\s*,\s*[^\s,]+)+)\s+(?:each|every)\s+(?P<length>\S+)")
_HOLD = re.compile(r"(?P<rate>[^\s]+)\s+for\s+(?P<length>\S+)")
_SPIKE = re.compile(r"(?P<rate>[^\s]+)\s+spike\s+(?P<peak>[^\s]+)\s+at\s+(?P<at>\S+)\s+for\s+(?P<length>\S+)")
HOW = (
    "write 200/s, '10..500/s over 60s' (a ramp), '100,200,400/s each 30s' (steps), "
    "'100/s spike 1000/s at 20s for 5s', '100/s for 10s', and several of them with 'then' between"
)
HIGHEST_PER_SECOND = 1_000_000


@dataclass(frozen=True)
class Segment:
    """The rate goes from `begin` to `end`, evenly, in so many seconds."""

    begin: float
    end: float
    seconds: float

    @property
    def count(self) -> float:
        return (self.begin + self.end) / 2 * self.seconds

    def at(self, number: float) -> float:
        """Seconds from the segment's beginning at which `number` requests were due: the inverse of L."""
        slope = (self.end - self.begin) / self.seconds
        if abs(slope) * self.seconds < 1e-9:
            return number / self.begin if self.begin else 0.0
        return (math.sqrt(max(0.0, self.begin**2 + 2 * slope * number)) - self.begin) / slope


@dataclass(frozen=True)
class Shape:
    """How the rate changes over a whole run."""

    segments: tuple[Segment, ...]

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.segments)

    @property
    def count(self) -> int:
        return round(sum(one.count for one in self.segments))

    @property
    def mean_per_second(self) -> float:
        return sum(one.count for one in self.segments) / self.seconds

    def moments(self, model: str, chance: random.Random) -> Iterator[float]:
        """When each request is due, in seconds from the beginning, in order."""
        count = self.count
        whole = sum(one.count for one in self.segments)
        positions = _uniform(count, chance) if model == POISSON else ((k + 0.5) / count for k in range(count))
        if len(self.segments) == 1 and self.segments[0].begin == self.segments[0].end:
            length = self.segments[0].seconds
            yield from (position * length for position in positions)
            return
        segments = iter(self.segments)
        current, began, before = next(segments), 0.0, 0.0
        for position in positions:
            number = position * whole
            while number > before + current.count:
                following = next(segments, None)
                if following is None:
                    break
                before += current.count
                began += current.seconds
                current = following
            yield began + min(current.at(min(number - before, current.count)), current.seconds)


def _uniform(count: int, chance: random.Random) -> Iterator[float]:
    """`count` random numbers between 0 and 1, in ascending order."""
    left, draw = 1.0, chance.random
    for remaining in range(count, 0, -1):
        left *= (1.0 - draw()) ** (1.0 / remaining)
        yield 1.0 - left


def constant(per_second: float, length: float) -> Shape:
    return checked(Shape((Segment(per_second, per_second, length),)))


def parse(text: str, length: float) -> Shape:
    """The shape that `--rate` says; `length` is for a rate that names no time of its own. Raises LoadError."""
    segments: list[Segment] = []
    for part in re.split(r"\bthen\b|;", text):
        segments += _segments(part.strip(), length)
    return checked(Shape(tuple(segments)))


def _segments(text: str, length: float) -> Sequence[Segment]:
    if found := _RAMP.fullmatch(text):
        low, high = _rates([found["low"], found["high"]])
        return [Segment(low, high, seconds(found["length"]))]
    if found := _STEPS.fullmatch(text):
        each = seconds(found["length"])
        return [Segment(one, one, each) for one in _rates(re.split(r"\s*,\s*", found["rates"]))]
    if found := _SPIKE.fullmatch(text):
        usual, peak = _rates([found["rate"], found["peak"]])
        at, high_for = seconds(found["at"]), seconds(found["length"])
        rest = length - at - high_for
        if rest <= 0:
            raise LoadError(f"the spike ends after the run does: make --for longer than {at + high_for:g}s")
        return [Segment(usual, usual, at), Segment(peak, peak, high_for), Segment(usual, usual, rest)]
    if found := _HOLD.fullmatch(text):
        held = rate(found["rate"])
        return [Segment(held, held, seconds(found["length"]))]
    try:
        held = rate(text)
    except LoadError as exc:
        raise LoadError(f"--rate {text!r} is not understood: {HOW}") from exc
    return [Segment(held, held, length)]


def _rates(texts: Sequence[str]) -> list[float]:
    """Several rates, of which perhaps only the last has its unit: 10..500/s."""
    _, slash, unit = texts[-1].partition("/")
    return [rate(text if "/" in text or not slash else f"{text}/{unit}") for text in texts]


def checked(shape: Shape) -> Shape:
    """The shape itself. Raises LoadError for one in which nothing would be sent."""
    if any(one.seconds <= 0 for one in shape.segments):
        raise LoadError("a part of the run has no length: give it more than 0 s")
    if max(max(one.begin, one.end) for one in shape.segments) > HIGHEST_PER_SECOND:
        raise LoadError(
            f"more than {HIGHEST_PER_SECOND:,}/s is far more than one process can send: ask for less, or spread the "
            "load over more processes with --locustfile"
        )
    if shape.count < 1:
        raise LoadError("nothing would be sent: the rate is too low for so short a run; raise --rate or --for")
    return shape
