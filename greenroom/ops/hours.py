"""From the moments of each second to what the history keeps: samples of 10 s and 5 min, routes, marks."""

from collections.abc import Mapping
from typing import Any

from .collect import Moment
from .history import KEPT_SECONDS, ROUTE_STEP_SECONDS, VALUES, History
from .latency import less, percentile

COUNTED = ("requests", "errors", "shed", "expired")
HIGHEST = ("in_flight", "lag_seconds", "cpu_ratio", "p50", "p95", "p99", "rss_bytes", "workers")
MOST_ROUTES = 100
MARKED = {"reload": "reload", "died": "worker died", "could not start": "worker could not start"}


class Bucket:
    """One step of time: counters as their growth, everything else as its highest value."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.began: int | None = None
        self.counted: dict[str, float] = {}
        self.values: dict[str, float | None] = {}

    def add(self, at: float, counted: Mapping[str, float], highest: Mapping[str, float | None]) -> Mapping[str, Any]:
        """The values of the step that ended with this moment; empty while it goes on."""
        began = int(at) // self.step * self.step
        ended: Mapping[str, Any] = {}
        if began != self.began:
            if self.began is not None:
                grown = {name: max(0.0, counted[name] - self.counted.get(name, 0.0)) for name in COUNTED}
                ended = {"at": self.began, **self.values, **grown}
            self.began, self.counted, self.values = began, dict(counted), {}
        for name, value in highest.items():
            before = self.values.get(name)
            if value is not None and (before is None or value > before):
                self.values[name] = value
        return ended


class Hours:
    """Runs on: the collecting thread."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.buckets = [Bucket(step) for step in KEPT_SECONDS]
        self._routes: Mapping[str, Any] | None = None
        self._routes_step = 0
        self._marked_until = float("-inf")
        self._recordings: set[str] | None = None

    def look(self, moment: Moment, seen: Mapping[str, Any]) -> None:
        counted = {name: float(moment.totals[name]) for name in COUNTED}
        total = seen["total"]
        newest = moment.history[-1] if moment.history else {}
        highest = {name: total.get(name) for name in HIGHEST if name in VALUES}
        highest["cpu_ratio"] = newest.get("cpu_ratio")
        for bucket in self.buckets:
            ended = bucket.add(moment.at, counted, highest)
            if ended:
                self.history.sample(bucket.step, ended["at"], ended)
        self._look_at_routes(moment)
        self._mark(moment, seen)

    def _look_at_routes(self, moment: Moment) -> None:
        step = int(moment.at) // ROUTE_STEP_SECONDS
        if step == self._routes_step:
            return
        routes, before = moment.sums["routes"], self._routes
        if before is not None:
            rows = [row for name in routes if (row := _route_row(name, routes[name], before.get(name, {}), moment))]
            self.history.routes(moment.at, sorted(rows, key=lambda row: -row[1])[:MOST_ROUTES])
        self._routes, self._routes_step = routes, step

    def _mark(self, moment: Moment, seen: Mapping[str, Any]) -> None:
        for event in moment.events:
            if event["since"] > self._marked_until and event["kind"] in MARKED:
                words = MARKED[event["kind"]] + (f" {event['worker']}" if event["worker"] else "")
                self.history.mark(event["at"], event["kind"], words)
        self._marked_until = max([self._marked_until, *(event["since"] for event in moment.events)])
        names = {row["name"] for row in seen["recordings"]}
        for name in names - (names if self._recordings is None else self._recordings):
            self.history.mark(moment.at, "recording", name)
        self._recordings = names


def _route_row(
    name: str, now: Mapping[str, Any], before: Mapping[str, Any], moment: Moment
) -> tuple[str, float, float, float, float | None] | None:
    count = now.get("count", 0) - before.get("count", 0)
    if count <= 0:
        return None
    failed = _failed(now) - _failed(before)
    spent = now.get("total_seconds", 0.0) - before.get("total_seconds", 0.0)
    _, p95 = percentile(less(now.get("buckets", []), before.get("buckets", [])), moment.sums["le"], 0.95)
    return name, count, max(0.0, failed), max(0.0, spent), p95


def _failed(route: Mapping[str, Any]) -> float:
    return float(route.get("statuses", {}).get("5xx", 0))
