"""Our worker beside the other servers, on one core each in turn: `python -m benchmarks.run`.

    round 1: hello: gevent, greenroom, gevent_pywsgi, ...     server started, asked, warmed up, measured, stopped
             dict:  gevent, greenroom, gevent_pywsgi, ...
    round 2: the same, beginning with the next server, so that what changes over time changes for all of them
    medians -> table, targets, run.json, run.png, run.svg

The load generator has a core of its own (70,000 requests in a second of it, more than any of these servers can do with
theirs). Each answer is compared with the right one. Servers that are not installed are listed, and not measured.
With --worker-classes the same application runs under gunicorn's worker classes, and only the class differs.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from . import insight, machine, report
from .client import Generator, Load
from .database import database_running
from .machine import running_on, this_machines_pinning
from .measuring import (
    DEFAULT_OUTPUT,
    Meter,
    between,
    command_of,
    ending,
    now,
    pinning_document,
    round_of,
    wide_console,
)  # fmt: skip
from .peers import (
    BASELINE,
    CLASS_ROUTES,
    HOW_TO_INSTALL,
    OURS,
    PEERS,
    ROUTES,
    SHARED_PACKAGES,
    WORKER_CLASSES,
    Environment,
    Peer,
    Route,
    differences,
    packages_of,
    peers_python,
)
from .servers import HOST, RunningServer, ServerFailed, effective_settings, serving, upstream_running
from .stats import Round, Summary, summarize
from .targets import TARGETS, judge

OUR_PACKAGES = ("flask", "werkzeug", "gunicorn", "gevent", "greenlet")
DESCRIPTION = (
    "One worker of ours beside other servers, one core each in turn: a table, targets, JSON and a plot. "
    "The other servers: " + "; ".join(HOW_TO_INSTALL) + "."
)


@dataclass(frozen=True)
class Options:
    rounds: int
    seconds: float
    warm_up_seconds: float
    clients: int
    threads: int
    timeout_seconds: float
    peers: tuple[str, ...]
    routes: tuple[str, ...]
    peers_venv: Path | None
    output: Path
    is_quick: bool = False
    has_insight: bool = False
    has_classes: bool = False

    def clients_on(self, route: Route) -> int:
        return self.clients if self.is_quick or self.has_classes else route.clients or self.clients

    def chosen_peers(self) -> list[Peer]:
        if self.has_insight:
            return [insight.WITHOUT, PEERS[OURS]]
        return list(WORKER_CLASSES) if self.has_classes else [PEERS[name] for name in self.peers]


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = read_options(arguments)

    def compare() -> None:
        packages = (*packages_of(PEERS.values()), *SHARED_PACKAGES)
        environment = Environment.look(peers_python(options.peers_venv), packages)
        Comparison(options, command_of("run", arguments), wide_console(), environment).run()

    return ending(compare)


def read_options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=DESCRIPTION)
    add = parser.add_argument
    add("--rounds", type=between(int, 1, 100), default=5, help="how often each server is measured (default: 5)")
    add("--seconds", type=between(float, 0.1, 600), default=4, help="measured time of a route in a round (default: 4)")
    add("--clients", type=between(int, 1, 1000), default=64, help="connections, a request each (default: 64)")
    add("--threads", type=between(int, 1, 1000), default=8, help="threads of gthread and granian (default: 8)")
    add("--timeout", type=between(float, 0.1, 600), default=30, help="seconds until a request failed (default: 30)")
    add("--peers", type=some_of(PEERS), default=tuple(PEERS), help=f"of {','.join(PEERS)} (default: all)")
    add("--routes", type=some_of(ROUTES), help=f"of {','.join(ROUTES)} (default: all; dict with --insight)")
    add("--peers-venv", type=Path, help="where the peers are installed (default: benchmarks/.venv, if it is there)")
    add("--output", type=Path, default=DEFAULT_OUTPUT, help="folder for results and logs")
    add("--worker-classes", action="store_true", help="one application under gunicorn's sync, gthread, gevent and ours")
    add("--insight", action="store_true", help="what insight costs: ours with it and without, no other server")
    add("--quick", action="store_true", help="a smoke test: one round, half a second a route, 8 clients")
    given = parser.parse_args(arguments)
    if given.quick:
        given.rounds, given.seconds, given.clients = 1, 0.5, 8
    routes = ("dict",) if given.insight else CLASS_ROUTES if given.worker_classes else tuple(ROUTES)
    return Options(
        rounds=given.rounds,
        seconds=given.seconds,
        warm_up_seconds=0.3 if given.quick else 1.0,
        clients=given.clients,
        threads=given.threads,
        timeout_seconds=given.timeout,
        peers=given.peers,
        routes=given.routes or routes,
        peers_venv=given.peers_venv,
        output=given.output.resolve(),
        is_quick=given.quick,
        has_insight=given.insight,
        has_classes=given.worker_classes,
    )


class Comparison:
    """One run of the command. `not_measured`: a sentence for each server that is missing, or failed."""

    def __init__(self, options: Options, command: str, console: Console, environment: Environment) -> None:
        self.options = options
        self.command = command
        self.console = console
        self.environment = environment
        self.facts = machine.facts()
        self.pinning = this_machines_pinning()
        self.routes = [ROUTES[name] for name in options.routes]
        if options.has_classes:  # each is asked on each, whatever it is made for
            self.routes = [replace(route, peers=()) for route in self.routes]
        self.peers, self.not_measured = installed(options.chosen_peers(), environment)
        self.rounds: list[Round] = []
        self.memory_kind = "RSS"
        self.database_url = self.database = ""

    def run(self) -> None:
        """Measure, and leave table, JSON and plot. Raises ServerFailed when ours or the baseline does not work."""
        started_at = now()
        (self.options.output / "logs").mkdir(parents=True, exist_ok=True)
        self.console.print(f"Pinning: {self.pinning.note}.")
        for sentence in self.not_measured:
            self.console.print(f"Not measured: {sentence}.", style="yellow", soft_wrap=True)
        if self.not_measured:
            self.console.print(f"To install them: {HOW_TO_INSTALL[0]}", soft_wrap=True)
        if not self.peers:
            raise ServerFailed("none of the servers to compare is installed")

        with running_on(self.pinning.load), ExitStack() as stack:
            if any(route.needs_database for route in self.routes):
                folder = self.options.output / "instance" / "postgres"
                self.database_url, self.database = stack.enter_context(database_running(folder))
            self.run_rounds()

        baseline = baseline_of(self.peers)
        labels = [peer.label(route) for route in self.routes for peer in self.peers]
        summaries = sorted(
            summarize(self.rounds, baseline.name),
            key=lambda one: (self.options.routes.index(one.route), labels.index(one.server)),
        )
        self._show(self.document(started_at, baseline, summaries), baseline, summaries)

    def run_rounds(self) -> None:
        """Fill `rounds`; who failed is in `not_measured` afterwards, and not in `rounds`."""
        for number in range(1, self.options.rounds + 1):
            for route in self.routes:
                for peer in rotated([peer for peer in self.peers if peer.is_asked(route)], number - 1):
                    try:
                        one = self.measure(peer, route, number)
                    except ServerFailed as exc:
                        self._drop(peer, route, exc)
                    else:
                        self.rounds.append(one)
                        self.console.print(progress(one, self.options.rounds), soft_wrap=True)

    def _drop(self, peer: Peer, route: Route, exc: ServerFailed) -> None:
        """A peer that fails is a finding, and no reason to lose what was measured of the others."""
        if peer.name in (OURS, BASELINE):
            raise exc
        self.peers = [other for other in self.peers if other is not peer]
        self.rounds = [one for one in self.rounds if one.server not in [peer.label(each) for each in self.routes]]
        self.not_measured.append(f"{peer.label(route)} failed on {route.name}: {one_line(str(exc))}")
        self.console.print(f"Dropped: {self.not_measured[-1]}", style="yellow", soft_wrap=True)

    def measure(self, peer: Peer, route: Route, number: int) -> Round:
        options = self.options
        server = peer.server(route, self.environment, options.threads)
        log = options.output / "logs" / f"run-{peer.name}-{route.name}-{number}.log"
        with ExitStack() as stack:
            environment = {"UPSTREAM_URL": stack.enter_context(upstream_running())} if route.needs_upstream else {}
            if route.needs_database:
                environment["DATABASE_URL"] = self.database_url
            running = stack.enter_context(
                serving(server, log=log, cores=self.pinning.server, environment=environment, ready_path=route.path)
            )
            load = Load(
                host=HOST,
                port=running.port,
                path=route.path,
                expected_body=right_answer(running, route),
                clients=options.clients_on(route),
                warm_up_seconds=options.warm_up_seconds,
                seconds=options.seconds,
                timeout_seconds=options.timeout_seconds,
            )
            meter = Meter(running, self.pinning)
            sample = Generator(load, at_start=meter.start, at_end=meter.stop).run()
            memory_bytes, self.memory_kind = running.memory()
        return round_of(sample, server.name, route.name, number, memory_bytes, meter)

    def document(self, started_at: str, baseline: Peer, summaries: Sequence[Summary]) -> dict[str, Any]:
        ours = machine.versions(OUR_PACKAGES)
        verdicts = [verdict for target in TARGETS if (verdict := judge(target, self.rounds)) is not None]
        warnings = report.warnings(
            summaries,
            load_average_before=self.facts["load_average_before"],
            busy_load_average=machine.BUSY_LOAD_AVERAGE,
            timeout_seconds=self.options.timeout_seconds,
        )
        if any(peer.command is not None for peer in self.peers):
            warnings += differences(ours, self.environment.versions)
        content = report.document(
            command=self.command,
            started_at=started_at,
            finished_at=now(),
            machine={**self.facts, "pinning": pinning_document(self.pinning)},
            versions={
                **self.environment.versions,
                **ours,
                "commit": machine.git_commit() or "unknown",
                **({"database": self.database} if self.database else {}),
            },
            options={**asdict(self.options), "output": self.options.output.name, "peers_venv": None},
            servers=[
                self._server_document(peer, route)
                for route in self.routes
                for peer in self.peers
                if peer.is_asked(route)
            ],
            routes={route.name: route.about for route in self.routes},
            baseline=baseline.name,
            memory_kind=self.memory_kind,
            warnings=warnings,
            rounds=self.rounds,
            summaries=summaries,
        )
        return {
            **content,
            "targets": [verdict.as_dict() for verdict in verdicts],
            "insight": [cost.as_dict() for route in self.routes if (cost := insight.cost(route.name, self.rounds))],
            "not_measured": list(self.not_measured),
        }

    def _server_document(self, peer: Peer, route: Route) -> dict[str, Any]:
        server = peer.server(route, self.environment, self.options.threads)
        command = public_command(server.command, self.environment.python)
        settings = {} if peer.command is not None else {"settings": effective_settings(server)}
        return {**replace(server, command=command).as_dict(), "route": route.name, **settings}

    def _show(self, content: dict[str, Any], baseline: Peer, summaries: Sequence[Summary]) -> None:
        """The table, the targets and the warnings on the terminal, the files in the output folder."""
        say = self.console.print
        say()
        say(report.table(summaries, baseline.name, self.memory_kind))
        load = report.load_in_words(self.options, "gthread and granian")
        say(f"{load}.", soft_wrap=True)
        for target in content["targets"]:
            say(f"{OURS} on {target['sentence']}.", style="green" if target["is_reached"] else "red", soft_wrap=True)
        for cost in content["insight"]:
            say(f"Cost: {cost['sentence']}.", style="green" if cost["is_within"] else "red", soft_wrap=True)
        for sentence in content["not_measured"]:
            say(f"Not measured: {sentence}.", style="yellow", soft_wrap=True)
        for warning in content["warnings"]:
            say(f"Warning: {warning}.", style="yellow", soft_wrap=True)
        versions = content["versions"]
        packages = dict.fromkeys((*OUR_PACKAGES, *packages_of(PEERS.values())))
        report.write(
            content,
            summaries,
            self.rounds,
            title="One worker on one core, beside other servers",
            load=load,
            versions=", ".join(f"{name} {versions[name]}" for name in packages if name in versions),
            stem=self.options.output / "run",
        )


def installed(chosen: Sequence[Peer], environment: Environment) -> tuple[list[Peer], list[str]]:
    """Those of `chosen` that can be measured, and a sentence for each of the others."""
    missing = {peer.name: peer.missing(environment) for peer in chosen}
    return (
        [peer for peer in chosen if not missing[peer.name]],
        [
            f"{peer.name}, because {', '.join(missing[peer.name])} is not installed"
            for peer in chosen
            if missing[peer.name]
        ],
    )


def baseline_of(peers: Sequence[Peer]) -> Peer:
    """Return the stock gevent worker, with which the others are compared; if it is not measured, the first one."""
    return next((peer for peer in peers if peer.name == BASELINE), peers[0])


def rotated(peers: Sequence[Peer], by: int) -> list[Peer]:
    at = by % len(peers) if peers else 0
    return [*peers[at:], *peers[:at]]


def right_answer(running: RunningServer, route: Route) -> bytes:
    """The body that every answer must be, byte for byte. Raises ServerFailed when it does not say what it should."""
    status, body = running.get(route.path, timeout_seconds=30)
    if status != 200 or not route.is_right(body):
        raise ServerFailed(f"{running.server.name} answers {status} {body[:200]!r}, not {route.expected!r}")
    return body


def public_command(command: Sequence[str], peers_python: Path) -> tuple[str, ...]:
    """`command` as somebody else would type it: without the folders of this machine."""
    folders = {
        sys.executable: "python",
        str(peers_python): "python",
        str(peers_python.parent.parent): "benchmarks/.venv",
    }
    return tuple(
        folders.get(word) or word.removeprefix(f"{peers_python.parent}/").replace(str(machine.ROOT), ".")
        for word in command
    )


def one_line(text: str, most: int = 300) -> str:
    shortened = " ".join(text.split())
    return shortened if len(shortened) <= most else shortened[: most - 1] + "…"


def progress(one: Round, rounds: int) -> str:
    rate, p50, p99 = (report.number(value) for value in (one.requests_per_second, one.p50_ms, one.p99_ms))
    return (
        f"round {one.number}/{rounds}  {one.route:5} {one.server:18} {rate:>6} requests/s  p50 {p50:>6} ms  "
        f"p99 {p99:>6} ms  generator {one.generator_cpu_ratio:4.0%}  errors {report.errors(one.errors)}"
    )


def some_of(known: Mapping[str, Any]) -> Any:
    """An argparse type: names of `known`, comma separated, each once, in the order in which they are known."""

    def parse(text: str) -> tuple[str, ...]:
        names = re.split(r"\s*,\s*", text.strip().strip(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'} is not one of {', '.join(known)}")
        return tuple(name for name in known if name in names)

    return parse


if __name__ == "__main__":
    sys.exit(main())
