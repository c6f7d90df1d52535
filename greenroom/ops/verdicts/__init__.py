"""The sentence at the top of the page: what is wrong, if anything, in words that name it.

Each rule looks at the moment and may find something (see finding). Which comes first, of several that are true at the
same time: the one that explains the others.

    nobody serves > a worker blocked > deadlock > a worker died > a database or an upstream that fails
    > limits of the machine > locks and executors with their holders > connections held > pool
    > slow upstream > slow query > slow lock, name server, offloaded work > overload > CPU > errors > reloads
    > memory, disk > deadlines > garbage, many queries > other slow waits > stalls that are over
    > slower than usual > what is under way

The rules are in modules by cause: workers, deaths, stalls, blocking, reloads; locks, pools, waiting; database,
upstreams; limits, load, work; errors; peers. Beside them: finding (what a rule finds), words and advice (their texts).

A blocked worker makes everybody wait, so whatever else is seen in it may be its doing; connections held explain a pool
that is empty, and that in turn the refusals behind it. Effects of a known cause are left out: see EXPLAINS.
"""

import logging

from ..collect import Moment
from ..shapes import View
from . import (
    database,
    deaths,
    errors,
    limits,
    load,
    locks,
    pools,
    reloads,
    stalls,
    upstreams,
    waiting,
    work,
    workers,
)
from .finding import BAD, LEVELS, OK, WATCH, Finding, Rule, finding
from .words import duration

__all__ = ["BAD", "EFFECTS", "LEVELS", "OK", "WATCH", "Finding", "findings", "in_order"]


def findings(moment: Moment, seen: View) -> list[Finding]:
    """Return the findings, worst first; "Healthy" alone if nothing is wrong. `seen` is the rest of the view."""
    found: list[Finding] = []
    for rule in RULES:
        try:
            found += rule(moment, seen)
        except Exception:  # what the other rules find is worth more than this one's error, which is said once
            if rule not in failed:
                failed.add(rule)
                logger.exception("a rule for verdicts failed")
    return in_order(found, seen)


logger = logging.getLogger(__name__)
failed: set[Rule] = set()


def in_order(found: list[Finding], seen: View) -> list[Finding]:
    """Without effects of causes that are among them, worst first; "Healthy" where nothing is wrong."""
    causes = {finding["cause"] for finding in found if finding["level"] != OK}
    explained = set().union(*(EXPLAINS.get(cause, set()) for cause in causes))
    found = [finding for finding in found if finding["cause"] not in explained or finding["level"] == OK]
    if not any(finding["level"] != OK for finding in found):
        found.insert(0, _healthy(seen))
    return sorted(found, key=lambda finding: LEVELS.index(finding["level"]))


# A known cause explains its effects: findings of the effects are left out, since advice on them would be wrong.
WAITS = {
    "upstream",
    "query",
    "lock",
    "pool",
    "held",
    "other",
    "offload",
    "takes_long",
    "slower_than_usual",
    "deadlines",
}
EXPLAINS: dict[str, set[str]] = {
    "database_silent": {"pool", "held", "query", "lock", "overload", "takes_long", "slower_than_usual", "deadlines"},
    "database_refuses": {"pool", "held", "query", "lock", "takes_long", "slower_than_usual", "deadlines"},
    "database_connections": {"pool", "held", "query", "takes_long", "slower_than_usual", "deadlines"},
    "database_full": {"pool", "query", "takes_long", "slower_than_usual", "deadlines"},
    "sqlite_locked": {"lock", "takes_long", "slower_than_usual", "deadlines"},
    "lock_held": {"lock", "upstream", "takes_long", "slower_than_usual", "deadlines"},
    "semaphore": {"lock", "upstream", "takes_long", "slower_than_usual", "deadlines"},
    "executor": {"lock", "upstream", "takes_long", "slower_than_usual", "deadlines"},
    "upstream_silent": {"upstream", "lock", "takes_long", "slower_than_usual", "deadlines"},
    "upstream_refuses": {"upstream", "slower_than_usual"},
    "upstream_unreachable": {"upstream", "lock", "takes_long", "slower_than_usual", "deadlines"},
    "upstream_fails": {"slower_than_usual"},
    "upstream": {"takes_long", "slower_than_usual", "deadlines"},
    "query": {"takes_long", "slower_than_usual", "deadlines"},
    "pool_leak": {"query", "takes_long", "slower_than_usual", "deadlines"},
    "pool": {"query", "takes_long", "slower_than_usual", "deadlines"},
    "held": {"query", "upstream", "takes_long", "slower_than_usual", "deadlines"},
    "blocked": WAITS | {"overload", "stalls", "uneven"},
    "log_blocks": WAITS | {"overload", "stalls", "uneven", "blocked"},
    "deadlock": WAITS,
    "overload": {"cpu", "slower_than_usual", "takes_long", "deadlines"},
    "throttled": {"overload", "uneven", "cpu", "robbed", "beside", "stalls", "slower_than_usual", "takes_long"},
    "uneven": {"overload", "cpu", "slower_than_usual", "takes_long", "deadlines"},
    "cpu": {"slower_than_usual"},
    "beside": {"cpu", "slower_than_usual"},
    "garbage": {"stalls", "slower_than_usual", "cpu"},
    "stalls": {"slower_than_usual", "takes_long"},
    "many_queries": {"slower_than_usual"},
    "memory_grows": {"garbage"},
    "threads_left": {"memory_grows", "garbage"},
}
# What may be an effect of something that takes a moment to be sure of: see settling.
FACTS = {"blocked", "stalls", "uneven", "beside", "memory_grows"}
EFFECTS = frozenset(set().union(*EXPLAINS.values()) - FACTS)


def _healthy(seen: View) -> Finding:
    total = seen["total"]
    rest = ""
    if total["requests_rate"] >= 0.05:
        rest = f": {total['requests_rate']:.3g} requests/s"
        if total["p95"] is not None:
            rest += f", 95 % of them within {duration(total['p95'])}"
    return finding(OK, f"Healthy{rest}.", cause="healthy")


RULES: tuple[Rule, ...] = (
    workers.nobody_serves,
    workers.blocked,
    locks.deadlock,
    deaths.dead,
    database.unreachable,
    upstreams.failing,
    errors.limits_met,
    limits.descriptors,
    locks.sqlite_locked,
    locks.executor_full,
    locks.held,
    pools.pool_runs_short,
    waiting.slow_wait(
        "upstream",
        "hosts",
        lambda host, numbers: f"Upstream {host} is slow: {numbers}." if host else f"Upstreams are slow: {numbers}.",
        "Ask who runs it; a shorter timeout or a budget for the route keeps requests from piling up.",
    ),
    waiting.slow_wait(
        "query",
        "different queries",
        lambda query, numbers: f"The database is slow: {numbers}{f' ({query[:80]})' if query else ''}.",
        "EXPLAIN what is slow; see whether it waits for a lock of another transaction (pg_blocking_pids(pid) of "
        "pg_stat_activity), or the database for its disk.",
    ),
    waiting.slow_wait(
        "lock",
        "locks and threads",
        locks.lock_words,
        "Hold locks for less, above all not while waiting for somebody else; see what the threads do.",
    ),
    waiting.slow_wait(
        "dns",
        "names",
        lambda name, numbers: f"The name server is slow{f' for {name}' if name else ''}: {numbers}.",
        "Does it answer (getent hosts NAME; its address is in resolv.conf)? A cache on this host (systemd-resolved, "
        "dnsmasq) keeps it out of requests.",
    ),
    waiting.slow_wait(
        "offload",
        "functions",
        lambda name, numbers: f"Offloaded work is slow{f' ({name})' if name else ''}: {numbers}.",
        "Its threads are all busy, or it computes for long.",
    ),
    limits.throttled,
    load.uneven,
    load.overload,
    errors.failing,
    reloads.refused,
    reloads.failed,
    reloads.hanging,
    work.left_behind,
    limits.memory,
    limits.disks,
    load.deadlines,
    stalls.garbage,
    work.many_queries,
    load.beside,
    load.cpu,
    load.robbed,
    waiting.slow_wait("other", "things", waiting.other_words, waiting.other_advice, worst=WATCH),
    stalls.recent,
    work.slower_than_usual,
    work.takes_long,
    work.given_up,
    work.refused_more,
    load.refused,
    load.slow_uploads,
    load.slow_readers,
    waiting.patient,
    workers.under_way,
)
