"""Our worker beside the other servers, on one core each in turn: `python -m benchmarks.run`.

    round 1: hello: gevent, greenroom, gevent_pywsgi, ...     server started, asked, warmed up, measured, stopped
             dict:  gevent, greenroom, gevent_pywsgi, ...
    round 2: the same, beginning with the next server, so that what changes over time changes for all of them
    medians -> table, targets, run.json, run.png, run.svg

The load generator has a core of its own (70,000 requests in a second of it, more than any of these servers can do with
theirs). Each answer is compared with the right one. Servers that are not installed are listed, and not measured.

Clients are raised until the server's core is full (see saturation), for each server by itself; --clients fixes their
number. With --against, an earlier run.json says what our requests cost then. With --worker-classes the same application
runs under gunicorn's worker classes, and only the class differs.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from . import against, insight, machine, report
from .client import Generator, Load, Sample
from .database import database_running
from .installing import install_peers
from .machine import running_on, this_machines_pinning
from .measuring import (
    Meter,
    command_of,
    ending,
    now,
    pinning_document,
    round_of,
    wide_console,
)  # fmt: skip
from .peers import (
    BASELINE,
    HOW_TO_INSTALL,
    OURS,
    PEERS,
    ROUTES,
    SHARED_PACKAGES,
    Environment,
    Peer,
    Route,
    differences,
    packages_of,
    peers_python,
)
from .run_options import Options, read_options
from .saturation import PROBE_SECONDS, PROBE_TIMEOUT_SECONDS, Probe, clients_that_fill
from .servers import HOST, RunningServer, ServerFailed, effective_settings, serving, upstream_running
from .stats import Round, Summary, summarize
from .targets import TARGETS, judge

OUR_PACKAGES = ("flask", "werkzeug", "gunicorn", "gevent", "greenlet")


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = read_options(arguments)

    def compare() -> bool:
        if options.installs_peers:
            install_peers()
        packages = (*packages_of(PEERS.values()), *SHARED_PACKAGES)
        environment = Environment.look(peers_python(options.peers_venv), packages)
        return Comparison(options, command_of("run", arguments), wide_console(), environment).run()

    return ending(compare)


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
        self.clients: dict[tuple[str, str], int] = {}  # that fill a server on a route
        self.database_url = self.database = ""

    def run(self) -> bool:
        """Measure, and leave table, JSON and plot; False when ours is dearer than in the run to compare with.

        Raises ServerFailed when ours or the baseline does not work.
        """
        started_at = now()
        before = None if self.options.against is None else against.read(self.options.against)
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
        content = self.document(started_at, baseline, summaries)
        self._show(content, baseline, summaries)
        return before is None or self._compare(before, content)

    def _compare(self, before: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
        found = against.changes(before, content)
        for change in found:
            self.console.print(f"{change.sentence()}.", style="red" if change.is_worse else "green", soft_wrap=True)
        if not found:
            self.console.print("Nothing was measured in both runs.", style="yellow")
        return bool(found) and not any(change.is_worse for change in found)

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
                serving(
                    server,
                    log=log,
                    cores=self.pinning.server,
                    environment=environment,
                    ready_path=route.ready_path or route.path,
                )
            )
            load = Load(
                host=HOST,
                port=running.port,
                path=route.path,
                expected_body=right_answer(running, route),
                clients=options.clients_on(route),
                body=route.body,
                warm_up_seconds=options.warm_up_seconds,
                seconds=options.seconds,
                timeout_seconds=options.timeout_seconds,
            )
            load = replace(load, clients=self._clients(peer, route, load, running))
            sample, meter = self._ask(load, running)
            memory_bytes, self.memory_kind = running.memory()
        return round_of(sample, server.name, route.name, number, memory_bytes, meter, load.clients)

    def _ask(self, load: Load, running: RunningServer) -> tuple[Sample, Meter]:
        meter = Meter(running, self.pinning)
        return Generator(load, at_start=meter.start, at_end=meter.stop).run(), meter

    def _clients(self, peer: Peer, route: Route, load: Load, running: RunningServer) -> int:
        """How many fill this server on this route; found in its first round."""
        if not self.options.raises_clients:
            return load.clients

        def probe(clients: int) -> Probe:
            short = replace(
                load,
                clients=clients,
                warm_up_seconds=PROBE_SECONDS / 2,
                seconds=PROBE_SECONDS,
                timeout_seconds=min(load.timeout_seconds, PROBE_TIMEOUT_SECONDS),
            )
            sample, meter = self._ask(short, running)
            return Probe(sample.requests_per_second, meter.server_cpu_ratio, sum(sample.errors.values()))

        key = (peer.name, route.name)
        if key not in self.clients:
            self.clients[key] = clients_that_fill(load.clients, probe)
        return self.clients[key]

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
            options={**asdict(self.options), "output": self.options.output.name, "peers_venv": None, "against": None},
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
    status, body = running.get(route.path, timeout_seconds=30, body=route.body)
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


if __name__ == "__main__":
    sys.exit(main())
