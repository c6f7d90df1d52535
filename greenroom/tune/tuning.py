"""`greenroom tune`: serve the application, calibrate, propose, verify, tell. It changes nothing by itself."""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from ..cores import usable_cores
from ..load import arrivals, expectations, finding, target
from ..load.expectations import Expectation
from ..load.plan import Plan
from ..load.request import Request
from ..load.running import perform
from ..load.units import LoadError, seconds
from ..settings import Settings, read_environment
from . import model, telling
from .calibration import costs_of, pool_size
from .model import Bounds, Costs, Proposed
from .serving import Served, served
from .telling import Measured
from .verifying import Measure, Verifier

MEMORY_SHARE = 0.7
CALIBRATION_RATE, CALIBRATION_SECONDS = 10.0, 5.0
NAMES = {
    model.WORKERS: "web_concurrency",
    model.LIMIT: "limit_requests",
    model.UPSTREAMS: "upstream_connections",
    model.PATIENCE: "client_patience_milliseconds",
    model.LINE: "queue_limit_requests",
    model.BUDGET: "request_budget_milliseconds",
}


def run(options: argparse.Namespace) -> int:
    """0: said what to set, or that nothing is worth changing. Raises LoadError (2) when it could not find out."""
    changes = tuned(options)
    if changes:
        print("\n".join(["", "# .env", *telling.env_lines(changes)]))
        if lines := telling.gunicorn_lines(changes):
            print("\n".join(["", "# or gunicorn.conf.py", *lines]))
    return 0


def tuned(options: argparse.Namespace) -> list[Proposed]:
    """The settings that are worth a change, after what was found has been told."""
    expected = tuple(expectations.parse(one) for one in options.expect)
    if not options.url.startswith("/"):
        raise LoadError(f"--url {options.url!r} must be a path of the application: --url '/search?q=a'")
    bounds = bounds_of(options)
    now = settings_now(bounds)
    print("measuring what one request costs ...", file=sys.stderr, flush=True)
    found, pool = calibrate(options.app, options.url, {})
    if pool is not None:
        now[model.POOL] = str(pool)
    proposal = model.propose(found, bounds, now, _limit(expected))
    print("\n".join([*telling.costs(found, bounds), "", *telling.table(proposal), ""]))
    settings = proposal.settings
    if not options.no_verify:
        verifier = Verifier(_measure(options, expected), found, proposal, now, bounds)
        settings = verifier.verified(has_alternatives=not options.quick)
    return [one for one in settings if one.is_change]


def _measure(options: argparse.Namespace, expected: tuple[Expectation, ...]) -> Measure:
    """The capacity under settings; the pool's is the application's own variable."""

    def measure(what: str, changes: Mapping[str, str]) -> Measured:
        print(f"measuring the capacity {what} ...", file=sys.stderr, flush=True)
        environ = {name: value for name, value in changes.items() if name != model.POOL}
        if options.pool_setting and model.POOL in changes:
            environ[options.pool_setting] = changes[model.POOL]
        one = Measured(what, changes, find_capacity(options, expected, environ))
        rate = "no rate held" if one.per_second is None else f"{one.per_second:.4g}/s"
        print(f"{one.what:55} {rate}", flush=True)
        return one

    return measure


def calibrate(app: str, path: str, settings: Mapping[str, str]) -> tuple[Costs, int | None]:
    """Measure the cost of one request, and how large a worker's database pool is now."""
    with served(app, {**settings, model.WORKERS: "1"}) as server:
        shape = arrivals.constant(CALIBRATION_RATE, CALIBRATION_SECONDS)
        said = perform(replace(_plan(server, path, ()), shape=shape))
        if said["stopped"]:
            raise LoadError("interrupted before anything was measured")
        if said["good"] < said["requests"] / 2 or said["p50_ms"] is None:
            kind = next(iter(said["errors_by_kind"]), "no answer")
            raise LoadError(f"{path} does not answer well even when it is hardly asked ({kind}): correct --url")
        view = server.ops.view()
    return costs_of(view, said["p50_ms"] / 1000), pool_size(view)


def find_capacity(
    options: argparse.Namespace, expected: tuple[Expectation, ...], settings: Mapping[str, str]
) -> float | None:
    with served(options.app, settings) as server:
        search = finding.search_of(seconds(options.length), 1e6, lambda phase, trial: None)
        found, _ = finding.find(
            _plan(server, options.url, expected), search, lambda plan: perform(plan, server.ops), thorough=False
        )
    if found.was_interrupted:
        raise LoadError("interrupted: the capacities that were found until then are above")
    return found.per_second


def _plan(server: Served, path: str, expected: tuple[Expectation, ...]) -> Plan:
    there = target.resolved(target.parse(server.origin + path))
    return Plan(there, (Request("GET", there.path),), model=arrivals.CONSTANT, expectations=expected)


def _limit(expected: tuple[Expectation, ...]) -> float | None:
    """The tightest latency that is expected."""
    return min((one.limit for one in expected if one.is_latency and one.wants_less), default=None)


def bounds_of(options: argparse.Namespace) -> Bounds:
    """Return the bounds that the options give, else those that are found."""
    memory = options.memory_mb * 2**20 if options.memory_mb else int(psutil.virtual_memory().available * MEMORY_SHARE)
    return Bounds(
        options.cores or usable_cores(), memory, options.max_connections or found_max_connections(), options.hosts
    )


def found_max_connections() -> int | None:
    """Return the connections that the PostgreSQL of DATABASE_URL allows; None without one, or without an answer."""
    url = {**read_environment(Path(".env")), **os.environ}.get("DATABASE_URL", "")
    if not url.startswith("postgresql"):
        return None
    try:
        import psycopg2

        connection = psycopg2.connect(url.replace("+psycopg2", "", 1), connect_timeout=5)
    except Exception as exc:  # no driver, or no database that can be reached now: a bound that must be told
        print(f"the database does not say how many connections it allows ({exc}); --max-connections", file=sys.stderr)
        return None
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW max_connections")
            row = cursor.fetchone()
            return int(row[0]) if row else None
    finally:
        connection.close()


def settings_now(bounds: Bounds) -> dict[str, str]:
    settings = Settings.read(read_environment(Path(".env")))
    now = {name: str(getattr(settings, field)) for name, field in NAMES.items()}
    if now[model.WORKERS] == "0":
        now[model.WORKERS] = str(bounds.cores)
    return now
