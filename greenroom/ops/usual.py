"""The usual course of each route: how long its requests took in the last hour, and what the time went into."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from .counters import add_lists

STEP_SECONDS = 10.0
STEPS = 360  # an hour
MOST_ROUTES = 300
# The latest steps, the window of the view, are compared with the usual and so are no part of it.
LATEST_STEPS = 2

Step = tuple[float, float, list[float], float]


class Usual:
    """Runs on: the collecting thread of the ops process."""

    def __init__(self) -> None:
        # By route, for each step: (requests, seconds in all, seconds by state, answers with 4xx).
        self.steps: dict[str, deque[Step]] = {}
        self._before: dict[str, Step] = {}
        self._stepped_at: float | None = None

    def look(self, now: float, routes: Mapping[str, Mapping[str, Any]]) -> None:
        if self._stepped_at is not None and now - self._stepped_at < STEP_SECONDS:
            return
        is_first = self._stepped_at is None
        self._stepped_at = now
        for route, row in list(routes.items())[:MOST_ROUTES]:
            refused = (row.get("statuses") or {}).get("4xx", 0)
            sums = row.get("count", 0), row.get("total_seconds", 0.0), list(row.get("seconds", [])), refused
            count, seconds, by_state, refused = self._before.get(route, (0, 0.0, [], 0))
            self._before[route] = sums
            by_state = add_lists(sums[2], [-one for one in by_state])
            grown = sums[0] - count, sums[1] - seconds, by_state, sums[3] - refused
            if not is_first or not count:
                self.steps.setdefault(route, deque(maxlen=STEPS)).append(grown)

    def of(self, route: str) -> dict[str, Any] | None:
        """{count, seconds (for one request, on average), by_state, refused_ratio (4xx), span_seconds}; None where
        nothing is known."""
        steps = list(self.steps.get(route, ()))[:-LATEST_STEPS]
        count = sum(step[0] for step in steps)
        if not count:
            return None
        by_state: list[float] = []
        for step in steps:
            by_state = add_lists(by_state, step[2])
        return {
            "count": count,
            "seconds": sum(step[1] for step in steps) / count,
            "by_state": [seconds / count for seconds in by_state],
            "refused_ratio": sum(step[3] for step in steps) / count,
            "span_seconds": len(steps) * STEP_SECONDS,
        }
