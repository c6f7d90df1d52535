"""From the options of the command line to a plan. All that is wrong with them is said before anything is sent."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import arrivals, checks, expectations, login, scenario, session, sources, target
from .plan import Plan
from .request import Maker, Request, rows_of
from .sources import Source
from .target import Target, tls_context
from .units import LoadError, seconds

DEFAULT_SECONDS = 30.0


def plan_of(options: argparse.Namespace) -> tuple[Plan, Source | None]:
    """The plan, and the arrivals that it plays if they were recorded. Raises LoadError."""
    expected = tuple(expectations.parse(one) for one in options.expect)
    there = target.parse(_url(options))
    length = seconds(options.length) if options.length else DEFAULT_SECONDS
    timeout = seconds(options.timeout)
    if length <= 0 or timeout <= 0:
        raise LoadError("--for and --timeout must be more than 0 s")
    source = _source(options)
    shape = None if source is not None else _shape(options, length)
    script = scenario.load(options.scenario) if options.scenario else None
    headers = headers_of(options.header)
    kinds: tuple[Request | Maker, ...] = (request_of(options, there, headers), *_also(options, headers))
    if script is not None:
        kinds = script.makers
        expected += tuple(expectations.parse(one) for one in script.expectations)
    plan = Plan(
        target.resolved(there, may_load_anything=options.i_may_load_this),
        kinds,
        shape=shape,
        users=options.users,
        pause_seconds=seconds(options.pause),
        length=length,
        model=options.arrivals or (arrivals.CONSTANT if options.find_capacity else arrivals.POISSON),
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
        http2=options.http2,
        rows=rows_of(options.values) if options.values else (),
        recorded=_recorded(source, options, headers) if source is not None else (),
    )
    plan = replace(plan, target=target.reach(plan.target, timeout))
    return _logged_in(plan, options.login, script, headers), source


def _url(options: argparse.Namespace) -> str:
    urls = [url for url in (options.url, options.against) if url]
    if len(urls) != 1:
        raise LoadError("where to? name one URL: greenroom load http://127.0.0.1:8000/ --rate 100 --for 30s")
    return str(urls[0])


def _source(options: argparse.Namespace) -> Source | None:
    file = options.replay or options.arrivals_from
    if file is None:
        return None
    if options.rate or options.users or options.find_capacity:
        raise LoadError(
            "the arrivals come from a file: leave out --rate, --users and --find-capacity; --speed 2 is twice as fast"
        )
    return sources.read(file, with_writes=options.with_writes)


def _recorded(
    source: Source, options: argparse.Namespace, headers: dict[str, str]
) -> tuple[tuple[float, Request], ...]:
    fills = sources.fills_of(options.map, options.map_file)
    return sources.requests_of(source, speed=options.speed, fills=fills, headers=headers)


def _shape(options: argparse.Namespace, length: float) -> arrivals.Shape | None:
    if options.find_capacity:
        if options.rate or options.users:
            raise LoadError("--find-capacity looks for the rate itself: leave out --rate and --users")
        return None
    if options.users:
        if options.rate:
            raise LoadError("--users and --rate are two models: leave one of them out")
        if options.users < 0:
            raise LoadError("--users must be 1 or more")
        return None
    if not options.rate:
        raise LoadError("how much? say --rate 200 (open model), --users 50 (closed model) or --find-capacity")
    return arrivals.parse(options.rate, length)


def request_of(options: argparse.Namespace, there: Target, headers: dict[str, str]) -> Request:
    """The one request that the command line describes."""
    body = b""
    if options.body is not None:
        body = _file(options.body[1:]) if options.body.startswith("@") else options.body.encode()
    method = options.method.upper() or ("POST" if options.body is not None else "GET")
    checked = tuple(checks.parse(one) for one in options.check)
    name = f"{method} {there.path.partition('?')[0]}"
    return Request(method, there.path, headers, body, name, 1.0, checks=checked, events=options.events)


def _also(options: argparse.Namespace, headers: dict[str, str]) -> Sequence[Request]:
    """`--also '3 GET /path body'`: weight, method and path; the weight may be left out."""
    found = []
    for text in options.also:
        words = text.split(None, 1)
        weight = 1.0
        if words and words[0].replace(".", "", 1).isdigit():
            weight, words = float(words[0]), words[1].split(None, 1) if words[1:] else []
        if len(words) == 1 and words[0].startswith("/"):
            words = ["GET", words[0]]
        if len(words) < 2 or not words[1].startswith("/"):
            raise LoadError(f"--also {text!r} is not understood: write '3 GET /path', or '1 POST /path BODY'")
        path, _, body = words[1].partition(" ")
        method = words[0].upper()
        checked = tuple(checks.parse(one) for one in options.check)
        name = f"{method} {path.partition('?')[0]}"
        found.append(Request(method, path, headers, body.encode(), name, weight, checks=checked))
    return found


def headers_of(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or not text.isprintable():
            raise LoadError(f"--header {name!r} is no header: write 'Name: value'")
        found[name.strip()] = value.strip()
    return found


def _file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as exc:
        raise LoadError(f"the body {name} cannot be read: {exc.strerror or exc}") from exc


def _logged_in(plan: Plan, asked: str | None, script: scenario.Scenario | None, headers: dict[str, str]) -> Plan:
    """Run what comes first, the login and the scenario's `setup`, and return the plan with their cookies and values."""
    if not asked and (script is None or script.setup is None):
        return replace(plan, shared_headers=headers if script is not None else {})
    tls = tls_context(verify=plan.verify, ca_file=plan.ca_file) if plan.target.is_tls else None
    first = session.Session(plan.target, plan.timeout_seconds, tls)
    if asked:
        login.log_in(first, asked)
    values = script.prepare(first) if script is not None else {}
    return replace(plan, values=values, shared_headers={**headers, **first.shared_headers})
