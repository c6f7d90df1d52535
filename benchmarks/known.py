"""Servers whose capacity is known: `python -m benchmarks.known KIND` prints its URL, and serves as the upstream does.

    slots     8 at a time, each for 40 ms, the others in line: 200/s; above it the line grows
    refusing  one at a time, each for 4 ms; 503 for who would wait for more than 60 ms: 250/s, and 1 % may be refused
    limited   answers at once, 300 a second and 30 more at first, 503 beyond: 300/s, and 1 % may be refused
    slowing   answers after 20 ms, and 5 ms more for each request over 150 in the last second: 180/s within 170 ms

When an answer is due follows from when its request came and from nothing else, so a timer that is late delays one
answer and takes nothing from the capacity.
"""

import asyncio
import collections
import sys

from .upstream import Upstream, answer, run

GOOD = answer("200 OK", {"is": "known"})
REFUSED = answer("503 Service Unavailable", {"is": "refused"})


class Slots:
    """So many requests at a time, each for so long; refused if it would wait for longer than `patience_seconds`."""

    def __init__(self, slots: int, seconds: float, patience_seconds: float = float("inf")) -> None:
        self.free_at = collections.deque([0.0] * slots)
        self.seconds = seconds
        self.patience_seconds = patience_seconds

    def __call__(self, now: float) -> float | None:
        """For how long the request that comes now waits for its answer; None if it is refused."""
        begins = max(now, self.free_at[0])
        if begins - now > self.patience_seconds:
            return None
        self.free_at.popleft()
        self.free_at.append(begins + self.seconds)
        return begins + self.seconds - now


class Slowing:
    """The more come in a second, the longer each takes: `seconds`, and `seconds_each` for each beyond `easy`."""

    def __init__(self, seconds: float, easy: int, seconds_each: float) -> None:
        self.seconds = seconds
        self.easy = easy
        self.seconds_each = seconds_each
        self.came: collections.deque[float] = collections.deque()

    def __call__(self, now: float) -> float | None:
        while self.came and self.came[0] <= now - 1.0:
            self.came.popleft()
        self.came.append(now)
        return self.seconds + max(0, len(self.came) - self.easy) * self.seconds_each


KINDS = {
    "slots": Slots(8, 0.040),
    "refusing": Slots(1, 0.004, patience_seconds=0.060),
    "limited": Slots(1, 1 / 300, patience_seconds=0.100),
    "slowing": Slowing(0.020, 150, 0.005),
}
IS_IMMEDIATE = {"limited"}


class Known(Upstream):
    """One connection to the server of this process's kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rule = KINDS[kind]
        self.is_immediate = kind in IS_IMMEDIATE

    def asked(self, head: bytes, transport: asyncio.Transport) -> None:
        seconds = self.rule(asyncio.get_running_loop().time())
        if seconds is None or self.is_immediate:
            self.answer_in(0.0, REFUSED if seconds is None else GOOD)
        else:
            self.answer_in(seconds, GOOD)


if __name__ == "__main__":
    run(0, lambda: Known(sys.argv[1]))
