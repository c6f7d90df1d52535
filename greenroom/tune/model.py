"""From what a request costs and what there is, to settings. Pure arithmetic; docs/tune.md explains it.

S   CPU seconds of a request          R   its latency when nothing else runs
H   seconds with a database connection    U   seconds on the slowest upstream
C   cores        M   memory for the workers, m that of one        D   database connections for this machine

workers          N = min(C, floor(M / m)), at least 1
rate of a worker x = min(1 / S, floor(D / N) / H)                  the CPU, or the connections it may have
in parallel      f(x, t) = ceil(x t + 2 sqrt(x t))                 Little's law, and two standard deviations
pool             P = min(f(x, H), floor(D / N))                    of a worker, overflow included
limit            L = 0 (found from the load) while the CPU is what there is least of;
                 f(x, R) where the database is: more in flight would only wait for connections
upstreams        0 (as many as are in flight), or f(x, U) where a smaller number is set now
patience         the latency that is expected: a client that waits longer has no use for the answer
line             Q = ceil(x * patience), at least 10
budget           ten times what is expected, at least 1 s
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

RESERVED_DATABASE_CONNECTIONS = 3  # superuser_reserved_connections of PostgreSQL
FEWEST_IN_LINE = 10
BUDGET_FACTOR, SHORTEST_BUDGET_MILLISECONDS = 10, 1000
WORKERS, LIMIT, UPSTREAMS = "WEB_CONCURRENCY", "GREENROOM_LIMIT_REQUESTS", "GREENROOM_UPSTREAM_CONNECTIONS"
PATIENCE, LINE = "GREENROOM_CLIENT_PATIENCE_MILLISECONDS", "GREENROOM_QUEUE_LIMIT_REQUESTS"
BUDGET = "GREENROOM_REQUEST_BUDGET_MILLISECONDS"
POOL = "pool"


@dataclass(frozen=True)
class Costs:
    """The costs of one request in seconds; `memory_bytes` is a worker's, `line` the one that stalled most."""

    cpu: float
    latency: float
    database: float = 0.0
    upstream: float = 0.0
    memory_bytes: int = 0
    line: str = ""


@dataclass(frozen=True)
class Bounds:
    """The limits of the machine and the database. None: not known, and no bound. `hosts` share the database."""

    cores: int
    memory_bytes: int | None = None
    max_connections: int | None = None
    hosts: int = 1

    @property
    def database_connections(self) -> int | None:
        """The connections that this machine may open: its share of what the database allows."""
        if self.max_connections is None:
            return None
        return max(1, (self.max_connections - RESERVED_DATABASE_CONNECTIONS) // self.hosts)


@dataclass(frozen=True)
class Proposed:
    """One setting. `effect` is filled in when it was measured."""

    name: str
    now: str
    proposed: str
    reason: str

    @property
    def is_change(self) -> bool:
        return self.now != self.proposed


@dataclass(frozen=True)
class Proposal:
    """`bound` is what there is least of: cpu, database, or memory; `expected_per_second` what the model promises."""

    settings: tuple[Proposed, ...]
    expected_per_second: float
    bound: str
    alternatives: tuple[Mapping[str, str], ...] = field(default=())

    def values(self) -> dict[str, str]:
        return {one.name: one.proposed for one in self.settings}


def in_parallel(rate: float, seconds: float) -> int:
    """How many are under way at once, seldom more."""
    mean = rate * seconds
    return max(1, math.ceil(mean + 2 * math.sqrt(mean) - 1e-9))


def propose(costs: Costs, bounds: Bounds, now: Mapping[str, str], limit_seconds: float | None) -> Proposal:
    """`now` has the settings as they are; `limit_seconds` is the latency that is expected, None when none is."""
    workers, worker_reason = _workers(costs, bounds)
    by_cpu = 1.0 / costs.cpu if costs.cpu > 0 else math.inf
    connections = bounds.database_connections
    share = None if connections is None else max(1, connections // workers)
    by_database = share / costs.database if share is not None and costs.database > 0 else math.inf
    rate = min(by_cpu, by_database)
    bound = "database" if by_database < by_cpu else "memory" if workers < bounds.cores else "cpu"
    settings = [Proposed(WORKERS, now[WORKERS], str(workers), worker_reason)]
    settings += _database(costs, bounds, now, rate, share)
    settings.append(_limit(costs, now, rate, bound))
    settings += _upstreams(costs, now, rate)
    if limit_seconds is not None and math.isfinite(rate):
        settings += _waiting(now, rate, limit_seconds)
    return Proposal(tuple(settings), rate * workers, bound, _alternatives(settings, workers, bounds))


def _workers(costs: Costs, bounds: Bounds) -> tuple[int, str]:
    workers, reason = bounds.cores, f"one for each of {bounds.cores} cores: {costs.cpu * 1000:.3g} ms of CPU a request"
    if bounds.memory_bytes is not None and costs.memory_bytes > 0:
        fit = max(1, bounds.memory_bytes // costs.memory_bytes)
        if fit < workers:
            each, whole = costs.memory_bytes // 2**20, bounds.memory_bytes // 2**20
            workers, reason = fit, f"{each} MB each, and {whole} MB for all of them"
    return max(1, workers), reason


def _database(costs: Costs, bounds: Bounds, now: Mapping[str, str], rate: float, share: int | None) -> list[Proposed]:
    if costs.database <= 0 or POOL not in now:
        return []
    wanted = in_parallel(rate, costs.database) if math.isfinite(rate) else 1
    size = wanted if share is None else min(wanted, share)
    reason = f"{costs.database * 1000:.3g} ms with a connection, {rate:.3g} requests/s in a worker"
    if share is not None and wanted >= share:
        reason += f"; {bounds.max_connections} connections of the database for {bounds.hosts} host(s) and all workers"
    return [Proposed(POOL, now[POOL], str(size), reason)]


def _limit(costs: Costs, now: Mapping[str, str], rate: float, bound: str) -> Proposed:
    if bound == "database":
        size = in_parallel(rate, costs.latency)
        return Proposed(LIMIT, now[LIMIT], str(size), "more in flight would only wait for database connections")
    return Proposed(LIMIT, now[LIMIT], "0", "found from the load while it runs: the CPU is what there is least of")


def _upstreams(costs: Costs, now: Mapping[str, str], rate: float) -> list[Proposed]:
    if costs.upstream <= 0 or now[UPSTREAMS] == "0" or not math.isfinite(rate):
        return []
    wanted = in_parallel(rate, costs.upstream)
    if int(now[UPSTREAMS]) >= wanted:
        return []
    return [Proposed(UPSTREAMS, now[UPSTREAMS], str(wanted), f"{costs.upstream * 1000:.3g} ms on it in each request")]


def _waiting(now: Mapping[str, str], rate: float, limit_seconds: float) -> list[Proposed]:
    milliseconds = max(1, round(limit_seconds * 1000))
    line = max(FEWEST_IN_LINE, math.ceil(rate * limit_seconds))
    budget = max(SHORTEST_BUDGET_MILLISECONDS, BUDGET_FACTOR * milliseconds)
    return [
        Proposed(PATIENCE, now[PATIENCE], str(milliseconds), "the expected latency: later answers are in vain"),
        Proposed(LINE, now[LINE], str(line), f"what {rate:.3g} requests/s answer in {milliseconds} ms"),
        Proposed(BUDGET, now[BUDGET], str(budget), "ten times what is expected: what takes longer has failed"),
    ]


def further(name: str, proposed: str, tried: str) -> str:
    """The next value beyond `tried`, in the direction away from `proposed`: the same step, or the same factor."""
    before, after = int(proposed), int(tried)
    if name == WORKERS:
        return str(max(1, 2 * after - before))
    return str(max(1, round(after * after / before))) if before else tried


def fitting(changes: Mapping[str, str], now: Mapping[str, str], bounds: Bounds) -> dict[str, str]:
    """The changes with a pool that all workers together may have: more workers leave a smaller share to each."""
    found = dict(changes)
    connections, pool = bounds.database_connections, found.get(POOL, now.get(POOL))
    if connections is not None and pool is not None:
        share = max(1, connections // int(found.get(WORKERS, now[WORKERS])))
        if share < int(pool):
            found[POOL] = str(share)
    return found


def _alternatives(settings: list[Proposed], workers: int, bounds: Bounds) -> tuple[Mapping[str, str], ...]:
    """The two nearest settings of what the model is least sure of: the limit if it set one, else the workers."""
    limit = next(int(one.proposed) for one in settings if one.name == LIMIT)
    if limit:
        return ({LIMIT: str(max(1, round(limit * 0.7)))}, {LIMIT: str(max(limit + 1, round(limit * 1.4)))})
    nearest = [count for count in (workers - 1, workers + 1) if count >= 1]
    return tuple({WORKERS: str(count)} for count in nearest if count <= bounds.cores + 1)
