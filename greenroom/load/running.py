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

from ..ops.client import Client
from . import capacity, causes, comparing, expectations, finding, locustfile, report_page
from .building import plan_of
from .capacity import Trial
from .engine import Engine
from .live import Live, live_for
from .plan import Plan, finished, hopeless
from .result import COULD_NOT_RUN, HELD, Result, exit_code, load, now_at, save
from .sources import recorded_as_json
from .summary import summary
from .units import LoadError, seconds


def run(options: argparse.Namespace) -> int:
    """Returns 0 held, 1 not held, 3 not valid. Raises LoadError (2) when it could not run."""
    if options.compare:
        print(comparing.compare([(path.stem, load(path)) for path in options.compare]))
        return HELD
    writable(options.json)
    writable(options.html)
    if options.locust_results:
        expected = [expectations.parse(one) for one in options.expect]
        return report(locustfile.results(options.locust_results, expected), options)
    plan, source = plan_of(options)
    if options.locustfile:
        save(options.locustfile, locustfile.written(plan, options.locustfile.name))
        return HELD
    watched = causes.find(plan.target, options.ops, options.token)
    if options.find_capacity:
        return find_capacity(plan, watched, options)
    said = perform(plan, watched, live_mode=options.live)
    if source is not None:
        said["recorded"] = recorded_as_json(source)
    return report(said, options)


def find_capacity(plan: Plan, watched: Client | None, options: argparse.Namespace) -> int:
    """Search the capacity; the exit code is 1 when no rate held."""

    def say(phase: str, trial: Trial) -> None:
        if options.live != "off":
            print(finding.line(phase, trial), file=sys.stderr, flush=True)

    search = finding.search_of(seconds(options.length) if options.length else None, options.highest, say)
    found, said = finding.find(plan, search, lambda one: perform(one, watched))
    print("\n".join(capacity.lines(found)))
    if said["limited_by"]:
        print(f"  above it, limited by: {said['limited_by']}")
    print(f"at {said['asked_per_second']:.4g}/s:")
    return report(said, options)


def writable(path: Path | None) -> None:
    """Say before the run, not after it, that a report cannot be saved there. Raises LoadError."""
    if path is not None and not (os.path.isdir(path.parent) and not path.is_dir() and os.access(path.parent, os.W_OK)):
        raise LoadError(f"the report cannot be saved in {path}: there is no such folder, or it may not be written to")


def perform(plan: Plan, watched: Client | None = None, *, live_mode: str = "off") -> Result:
    """Run it, with live output; Ctrl-C and SIGTERM end it early with what was measured."""
    watcher = causes.Watcher(watched) if watched is not None else None
    live = live_for(live_mode, f"greenroom load {plan.target.origin}", watcher.sentence if watcher else lambda: "")
    engine = plan.engine(lambda running, number: _second(plan, running, number, live))
    began_at = now_at()
    with _stops(engine.stop), _quick_switches():
        try:
            if watcher is not None:
                watcher.start()
            engine.run()
        finally:
            live.close()
            if watcher is not None:
                watcher.close()
    rows = watcher.rows if watcher is not None else []
    said = finished(plan, engine, began_at, rows)
    said["limited_by"] = causes.limited_by(said, rows)
    said["ops"] = watcher.url if watcher is not None else None
    return said


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


def report(said: Result, options: argparse.Namespace) -> int:
    """Print and save it; the exit code. A report that cannot be saved is said after the numbers, not instead."""
    print(summary(said))
    try:
        if options.json is not None:
            save(options.json, json.dumps(said, indent=1) + "\n")
        if options.html is not None:
            save(options.html, report_page.page(said))
    except LoadError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return COULD_NOT_RUN
    return exit_code(said)
