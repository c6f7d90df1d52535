"""The options of `python -m benchmarks.run`."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import insight
from .measuring import DEFAULT_OUTPUT, between
from .peers import CLASS_ROUTES, HOW_TO_INSTALL, OURS, PEERS, ROUTES, WORKER_CLASSES, Peer, Route

DEFAULT_CLIENTS = 64
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
    raises_clients: bool = False
    against: Path | None = None
    installs_peers: bool = False

    def clients_on(self, route: Route) -> int:
        return route.clients or self.clients if self.raises_clients else self.clients

    def chosen_peers(self) -> list[Peer]:
        if self.has_insight:
            return [insight.WITHOUT, PEERS[OURS]]
        return list(WORKER_CLASSES) if self.has_classes else [PEERS[name] for name in self.peers]


def read_options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=DESCRIPTION)
    add = parser.add_argument
    add("--rounds", type=between(int, 1, 100), default=5, help="how often each server is measured (default: 5)")
    add("--seconds", type=between(float, 0.1, 600), default=4, help="measured time of a route in a round (default: 4)")
    add("--clients", type=between(int, 1, 1000), help="connections, a request each (default: as fill the server)")
    add("--threads", type=between(int, 1, 1000), default=8, help="threads of gthread and granian (default: 8)")
    add("--timeout", type=between(float, 0.1, 600), default=30, help="seconds until a request failed (default: 30)")
    add("--peers", type=some_of(PEERS), default=tuple(PEERS), help=f"of {','.join(PEERS)} (default: all)")
    add("--routes", type=some_of(ROUTES), help=f"of {','.join(ROUTES)} (default: all; dict with --insight)")
    add("--peers-venv", type=Path, help="where the peers are installed (default: benchmarks/.venv, if it is there)")
    add("--output", type=Path, default=DEFAULT_OUTPUT, help="folder for results and logs")
    add("--worker-classes", action="store_true", help="one application under gunicorn's sync, gthread, gevent and ours")
    add("--insight", action="store_true", help="what insight costs: ours with it and without, no other server")
    add("--against", type=Path, help="an earlier run.json: fail where a request of ours has become dearer")
    add("--install-peers", action="store_true", help="install the other servers into benchmarks/.venv first")
    add("--quick", action="store_true", help="a smoke test: one round, half a second a route, 8 clients")
    given = parser.parse_args(arguments)
    if given.quick:
        given.rounds, given.seconds, given.clients = 1, 0.5, 8
    is_one_number = bool(given.clients) or given.worker_classes or given.insight
    routes = ("dict",) if given.insight else CLASS_ROUTES if given.worker_classes else tuple(ROUTES)
    return Options(
        rounds=given.rounds,
        seconds=given.seconds,
        warm_up_seconds=0.3 if given.quick else 1.0,
        clients=given.clients or DEFAULT_CLIENTS,
        threads=given.threads,
        timeout_seconds=given.timeout,
        peers=given.peers,
        routes=given.routes or routes,
        peers_venv=given.peers_venv,
        output=given.output.resolve(),
        is_quick=given.quick,
        has_insight=given.insight,
        has_classes=given.worker_classes,
        raises_clients=not is_one_number,
        against=given.against,
        installs_peers=given.install_peers,
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
