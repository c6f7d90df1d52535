"""`greenroom load`, from its options to its exit code."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import arrivals, checks, expectations, target
from .engine import Engine
from .live import Live, live_for
from .plan import Plan, finished, hopeless
from .request import Request
from .result import COULD_NOT_RUN, exit_code, now_at, save
from .summary import summary
from .target import Target
from .units import LoadError, seconds

DEFAULT_SECONDS = 30.0


def run(options: argparse.Namespace) -> int:
    """Returns 0 held, 1 not held, 3 not valid. Raises LoadError (2) when it could not run."""
    plan = plan_of(options)
    writable(options.json)
    said = perform(plan, live_mode=options.live)
    return report(said, options)


def plan_of(options: argparse.Namespace) -> Plan:
    """Raises LoadError for whatever is wrong, before anything is sent."""
    expected = tuple(expectations.parse(one) for one in options.expect)
    if not options.url:
        raise LoadError("where to? name the URL: greenroom load http://127.0.0.1:8000/ --rate 100 --for 30s")
    there = target.parse(options.url)
    length = seconds(options.length) if options.length else DEFAULT_SECONDS
    timeout = seconds(options.timeout)
    if length <= 0 or timeout <= 0:
        raise LoadError("--for and --timeout must be more than 0 s")
    shape = _shape(options, length)
    asked = (request_of(options, there),)
    there = target.resolved(there, may_load_anything=options.i_may_load_this)
    return Plan(
        target.reach(there, timeout),
        asked,
        shape=shape,
        users=options.users,
        pause_seconds=seconds(options.pause),
        length=length,
        model=options.arrivals,
        seed=options.seed,
        expectations=expected,
        abort_on_fail=options.abort_on_fail,
        timeout_seconds=timeout,
        connections=options.connections,
        new_connections=options.new_connections,
        follows=not options.no_follow,
        largest_bytes=int(options.largest_answer * 1024 * 1024),
        verify=not options.insecure,
        ca_file=options.ca,
    )


def _shape(options: argparse.Namespace, length: float) -> arrivals.Shape | None:
    if options.users:
        if options.rate:
            raise LoadError("--users and --rate are two models: leave one of them out")
        if options.users < 0:
            raise LoadError("--users must be 1 or more")
        return None
    if not options.rate:
        raise LoadError("how much? say --rate 200 (open model), --users 50 (closed model) or --find-capacity")
    return arrivals.parse(options.rate, length)


def request_of(options: argparse.Namespace, there: Target) -> Request:
    """The one request that the command line describes."""
    body = b""
    if options.body is not None:
        body = _file(options.body[1:]) if options.body.startswith("@") else options.body.encode()
    method = options.method.upper() or ("POST" if options.body is not None else "GET")
    return Request(
        method,
        there.path,
        headers_of(options.header),
        body,
        f"{method} {there.path.partition('?')[0]}",
        1.0,
        tuple(checks.parse(one) for one in options.check),
    )


def headers_of(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise LoadError(f"--header {text!r} is no header: write 'Name: value'")
        found[name.strip()] = value.strip()
    return found


def _file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as exc:
        raise LoadError(f"the body {name} cannot be read: {exc.strerror or exc}") from exc


def writable(path: Path | None) -> None:
    """Say before the run, not after it, that a report cannot be saved there. Raises LoadError."""
    if path is not None and not (os.path.isdir(path.parent) and not path.is_dir() and os.access(path.parent, os.W_OK)):
        raise LoadError(f"the report cannot be saved in {path}: there is no such folder, or it may not be written to")


def perform(plan: Plan, *, live_mode: str = "off") -> dict[str, Any]:
    """Run it, with live output; Ctrl-C and SIGTERM end it early with what was measured."""
    live = live_for(live_mode, f"greenroom load {plan.target.origin}")
    engine = plan.engine(lambda running, number: _second(plan, running, number, live))
    began_at = now_at()
    with _stops(engine.stop), _quick_switches():
        try:
            engine.run()
        finally:
            live.close()
    return finished(plan, engine, began_at)


def _second(plan: Plan, engine: Engine, number: int, live: Live) -> None:
    live.second(engine, number)
    if plan.abort_on_fail and (failed := hopeless(plan, engine)) is not None:
        engine.stop(f"{failed.text} cannot hold any more")


@contextmanager
def _stops(stop: Callable[[str], None]) -> Iterator[None]:
    """Signals call `stop`; a second one of the same kind does what it usually does."""
    before: dict[signal.Signals, Any] = {}

    def on_signal(number: int, frame: object) -> None:
        sent = signal.Signals(number)
        stop("Ctrl-C" if sent == signal.SIGINT else sent.name)
        signal.signal(sent, before[sent])

    for one in (signal.SIGINT, signal.SIGTERM):
        before[one] = signal.signal(one, on_signal)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _quick_switches() -> Iterator[None]:
    """Other threads give the interpreter back soon: the generator's moments are exact to a millisecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.000_5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def report(said: dict[str, Any], options: argparse.Namespace) -> int:
    """Print and save it; the exit code. A report that cannot be saved is said after the numbers, not instead."""
    print(summary(said))
    try:
        if options.json is not None:
            save(options.json, json.dumps(said, indent=1) + "\n")
    except LoadError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return COULD_NOT_RUN
    return exit_code(said)
