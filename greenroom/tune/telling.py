"""The output of `greenroom tune`: a table, lines of .env, a fragment of gunicorn.conf.py. No file is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .model import POOL, WORKERS, Bounds, Costs, Proposal, Proposed

WORTH_RATIO = 1.10


@dataclass(frozen=True)
class Measured:
    """The capacity with some settings; None when no rate held."""

    what: str
    settings: Mapping[str, str]
    per_second: float | None


def table(proposal: Proposal) -> list[str]:
    rows = [("setting", "now", "proposed", "reason")]
    rows += [
        (one.name, one.now, one.proposed if one.is_change else "(as it is)", one.reason) for one in proposal.settings
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(row[column].ljust(widths[column]) for column in range(3)), row[3]]) for row in rows]


def costs(found: Costs, bounds: Bounds) -> list[str]:
    parts = [f"{found.cpu * 1000:.3g} ms CPU", f"{found.latency * 1000:.3g} ms latency unloaded"]
    if found.database:
        parts.append(f"{found.database * 1000:.3g} ms with a database connection")
    if found.upstream:
        parts.append(f"{found.upstream * 1000:.3g} ms on upstreams")
    parts.append(f"{found.memory_bytes // 2**20} MB a worker")
    there = [f"{bounds.cores} cores"]
    if bounds.memory_bytes is not None:
        there.append(f"{bounds.memory_bytes // 2**20} MB")
    if bounds.max_connections is not None:
        there.append(f"{bounds.max_connections} database connections for {bounds.hosts} host(s)")
    return [f"one request: {', '.join(parts)}", f"there is: {', '.join(there)}"]


def verdict(before: Measured, others: Sequence[Measured], found: Costs, bound: str) -> tuple[str, Measured]:
    """One sentence, and the settings to take: those of now unless others are a tenth better."""
    best = max(others, key=lambda one: one.per_second or 0.0, default=before)
    now = before.per_second or 0.0
    if (best.per_second or 0.0) >= WORTH_RATIO * now and best.per_second:
        gain = f"{best.per_second / now:.2f} times as much" if now else "where none held before"
        return f"{best.what}: {best.per_second:.4g}/s instead of {now:.4g}/s, {gain}.", best
    words = f"Nothing is worth changing: {now:.4g}/s as it is, {best.per_second or 0:.4g}/s at best otherwise."
    if bound == "cpu":
        where = f" {found.line}" if found.line else ""
        words += f" The limit is the CPU, {found.cpu * 1000:.3g} ms of each request: make it cheaper" + (
            f", first of all{where}." if where else " (`greenroom load` names the lines that stall)."
        )
    return words, before


def env_lines(settings: Sequence[Proposed]) -> list[str]:
    """Those that change, for .env."""
    lines = []
    for one in settings:
        if one.is_change and one.name == POOL:
            lines.append(f"# the database pool, where your application makes its engine: pool_size={one.proposed}")
        elif one.is_change:
            lines.append(f"{one.name}={one.proposed}")
    return lines


def gunicorn_lines(settings: Sequence[Proposed]) -> list[str]:
    """Return the lines for gunicorn's own file; settings that begin with GREENROOM_ come from the environment."""
    return [f"workers = {one.proposed}" for one in settings if one.is_change and one.name == WORKERS]
