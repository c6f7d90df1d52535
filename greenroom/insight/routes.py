"""Finished requests by route pattern: how many, how long, and what the time went into at each length.

A route is a pattern of the application's own (`/boards/<slug>`), never a path that a client made up: what matched no
route, and applications without routes, are "other". So a scan for pages that don't exist adds nothing.
"""

from bisect import bisect_left
from typing import Any

from .account import OTHER_ROUTE, STATES, Account

# Upper bounds of the latency buckets, in seconds; each is the same part of the next but for rounding.
LE = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15),
    *(0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0),
)
SHORTEST = LE[0]
STATUSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
MOST_ROUTES = 500
MOST_HOSTS = 200
WAITS = range(2, len(STATES))


class Route:
    """One route's sums. `bands` has the seconds by state for each latency bucket that anything fell into."""

    __slots__ = ("bands", "buckets", "count", "cut", "statuses", "total_seconds")

    def __init__(self) -> None:
        self.count = 0
        self.cut = 0
        self.total_seconds = 0.0
        self.statuses = [0, 0, 0, 0, 0, 0]  # by the first digit; 0: no answer was written
        self.buckets = [0] * (len(LE) + 1)
        self.bands: dict[int, list[float]] = {}

    def add(self, account: Account, status: int) -> None:
        total = account.ended - account.began
        self.count += 1
        self.total_seconds += total
        self.statuses[status // 100 if 100 <= status < 600 else 0] += 1
        number = 0 if total <= SHORTEST else bisect_left(LE, total)
        self.buckets[number] += 1
        band = self.bands.get(number)
        if band is None:
            band = self.bands[number] = [0.0] * len(STATES)
        seconds = account.seconds
        band[0] += seconds[0]
        band[1] += seconds[1]
        if account.has_waited:
            for state in WAITS:
                band[state] += seconds[state]
        if account.is_cut:
            self.cut += 1

    def seconds(self) -> list[float]:
        return [sum(column) for column in zip(*list(self.bands.values()), strict=True)] or [0.0] * len(STATES)

    def as_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "cut": self.cut,
            "statuses": {
                f"{digit}xx" if digit else "none": count for digit, count in enumerate(self.statuses) if count
            },
            "seconds": self.seconds(),
            "total_seconds": self.total_seconds,
            "buckets": list(self.buckets),
            "bands": {str(number): list(band) for number, band in list(self.bands.items())},
        }


class Routes:
    """All routes of a worker, and the hosts that were waited for. Runs on: request greenlet; anybody may read."""

    def __init__(self) -> None:
        self.by_pattern: dict[str, Route] = {}
        self.hosts: dict[str, list[float]] = {}  # [requests that waited for it, seconds]

    def add(self, account: Account, status: int) -> None:
        pattern = account.route or account.pattern()
        route = self.by_pattern.get(pattern)
        if route is None:
            if len(self.by_pattern) >= MOST_ROUTES:
                pattern = OTHER_ROUTE
            route = self.by_pattern.setdefault(pattern, Route())
        route.add(account, status)
        if account.hosts:
            for name, seconds in account.hosts.items():
                self._add_host(name, seconds)

    def _add_host(self, name: str, seconds: float) -> None:
        host = self.hosts.get(name)
        if host is None:
            if len(self.hosts) >= MOST_HOSTS:
                name = OTHER_ROUTE
            host = self.hosts.setdefault(name, [0, 0.0])
        host[0] += 1
        host[1] += seconds
