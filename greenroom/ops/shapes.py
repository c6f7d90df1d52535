"""The documents of the ops process: what it makes, and what its page, its commands, `load` and `tune` read.

A reader gets them as JSON from a server of perhaps another version, so any key may be missing there.
"""

from typing import Any, TypedDict

Row = dict[str, Any]


class Latency(TypedDict, total=False):
    """Seconds, None where there was no request; by state: the shares of those that took about as long."""

    p50: float | None
    p50_by_state: list[float]
    p95: float | None
    p95_by_state: list[float]
    p99: float | None
    p99_by_state: list[float]


class Total(Latency, total=False):
    requests_rate: float
    goodput_rate: float
    shed_rate: float
    error_rate: float
    expired_rate: float
    in_flight: float
    in_flight_untold: int
    queued: int
    connections: float
    finished_count: float
    failed_count: float
    lag_seconds: float
    workers_serving: int
    workers_blocked: int
    workers: int
    workers_started: float
    workers_ended: float
    workers_died: float
    requests: float
    shed: float
    rss_bytes: float


class RouteRow(Latency, total=False):
    route: str
    count: float
    rate: float
    errors: float
    refused: float
    cut: float
    recent: float
    queries: float | None
    usual: Row | None
    seconds: list[float]  # of one request, by state


class WorkerRow(TypedDict, total=False):
    number: int
    pid: int
    state: str
    in_flight: float
    queued: int
    limit_requests: int
    load_ratio: float | None
    connections: float
    requests: float
    requests_rate: float
    goodput_rate: float
    shed_rate: float
    p95: float | None
    stalls: int
    lag_seconds: float
    cpu_ratio: float
    rss_bytes: float
    age_seconds: float
    greenlets: int
    unanswered_seconds: float
    is_stale: bool
    stall: Row | None
    booting: list[str]


class Bar(TypedDict):
    """Something that can be full: at 1.0."""

    name: str
    ratio: float
    text: str


class WaitRow(TypedDict):
    """Requests that wait for the same, all workers together."""

    state: str
    detail: str
    lines: list[Row]
    count: float
    middle_seconds: float
    longest_seconds: float


class Stalls(TypedDict, total=False):
    total: int
    seconds: float
    top: list[Row]
    now: list[Row]
    last: list[Row]


class Verdict(TypedDict, total=False):
    """The first finding; `do` is the advice. The facts behind the sentence are beside it."""

    level: str
    cause: str
    sentence: str
    do: str
    at: float
    line: str
    stack: list[str]
    since: float | None
    others: "list[Verdict]"


class GreenletRow(TypedDict):
    """A greenlet of a request; `own` is the place in its stack of the innermost call of the application's."""

    name: str
    state: str
    stack: list[str]
    own: int | None


class Stacks(TypedDict, total=False):
    """A request from inside: its greenlets, or that it has gone, or why it can't be looked at."""

    id: str
    greenlets: list[GreenletRow]
    gone: bool
    error: str


class View(TypedDict, total=False):
    at: float
    now: float
    about: Row
    states: list[str]
    total: Total
    saturation: list[Bar]
    history: dict[str, list[float]]
    routes: list[RouteRow]
    workers: list[WorkerRow]
    pools: list[Row]
    upstreams: list[Row]
    databases: list[Row]
    failures: list[Row]
    queries: list[Row]
    beside: list[Row]
    holders: list[Row]
    executors: list[Row]
    clients: Row
    growing: list[Row]
    garbage: dict[str, float]
    limits: Row
    leaks: list[Row]
    reload: Row
    stalls: Stalls
    held: list[Row]
    deadlocks: list[Row]
    in_flight: list[Row]
    in_flight_groups: list[Row]
    in_flight_states: dict[str, float]
    in_flight_routes: dict[str, float]
    waits: list[WaitRow]
    events: list[Row]
    recordings: list[Row]
    incidents: list[Row]
    hosts: list[Row]
    verdict: Verdict
