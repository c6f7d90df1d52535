"""When the next request is due: planned beforehand (open), or when a user has had an answer (closed)."""

import heapq
import math
from collections.abc import Iterator
from typing import Protocol

NEVER = math.inf


class Pacer(Protocol):
    """`due` is the planned moment of the next request, NEVER while none is known."""

    due: float

    def advance(self) -> float:
        """The one that was due has been taken; the next."""

    def finished(self, moment: float) -> None:
        """A request has ended."""

    @property
    def is_over(self) -> bool:
        """Whether no request will be due any more."""


class Open:
    """Requests come when they come, whatever became of those before."""

    def __init__(self, moments: Iterator[float]) -> None:
        self._moments = moments
        self.due = next(moments, NEVER)

    def advance(self) -> float:
        self.due = next(self._moments, NEVER)
        return self.due

    def finished(self, moment: float) -> None:
        """The plan does not depend on answers."""

    @property
    def is_over(self) -> bool:
        return self.due == NEVER


class Closed:
    """So many users; each asks again, after a pause, when it has the answer to its last request."""

    def __init__(self, users: int, length: float, pause_seconds: float = 0.0) -> None:
        self._length = length
        self._pause = pause_seconds
        # Spread over a pause or 50 ms, so that they do not come in one crowd.
        spread = max(0.05, pause_seconds)
        self._heap = [spread * number / users for number in range(users)]
        self.due = self._heap[0]

    def advance(self) -> float:
        heapq.heappop(self._heap)
        return self._next()

    def finished(self, moment: float) -> None:
        heapq.heappush(self._heap, moment + self._pause)
        self._next()

    def _next(self) -> float:
        self.due = self._heap[0] if self._heap and self._heap[0] < self._length else NEVER
        return self.due

    @property
    def is_over(self) -> bool:
        return bool(self._heap) and self._heap[0] >= self._length
