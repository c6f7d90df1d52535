"""Asking the application: each route alone, then many at once beside a heartbeat, under a real worker of Greenroom."""

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psutil

from ..insight.account import CPU, OTHER, STATE_OF
from .plan import Route
from .queued import ran_seconds
from .server import HEARTBEAT, NO_ANSWER, Answer, Server

ALONE_TIMES = 4
AT_ONCE = 50
LONGEST_ALONE_SECONDS = 6.0
# A first request that takes as long may have imported something: its seconds are counted apart.
FIRST_SECONDS = 0.02
# Many at once may take so long together: fewer, where one computes for long.
AT_ONCE_CPU_SECONDS = 1.5
LOOK_SECONDS = 0.15
HEARTBEAT_SECONDS = 0.05
NO_WAITS = ("cpu", "ready", "offload", "client")
RESTART_SECONDS = 10.0
# From this share of those that ask on, what they wait for is a finding.
WAITING_SHARE = 0.3


@dataclass
class Seen:
    """The outcome of driving one route."""

    route: Route
    alone: list[Answer] = field(default_factory=list)
    crowd: list[tuple[str, Answer]] = field(default_factory=list)  # nonce, answer
    paced: list[tuple[str, Answer]] = field(default_factory=list)  # with nonces too, one after the other
    at_once: int = 0
    stalls: list[dict[str, Any]] = field(default_factory=list)  # while it was alone
    crowd_stalls: list[dict[str, Any]] = field(default_factory=list)
    waits: list[dict[str, Any]] = field(default_factory=list)  # of the requests in flight, when many were
    pools: list[dict[str, Any]] = field(default_factory=list)
    executors: list[dict[str, Any]] = field(default_factory=list)  # those with more to do than threads
    stacks: list[str] = field(default_factory=list)  # of a request that did not answer
    deadlocks: list[dict[str, Any]] = field(default_factory=list)
    states: list[float] = field(default_factory=list)  # seconds by state, of those that were alone
    first_states: list[float] = field(default_factory=list)  # of the first of them alone, which may import and compile
    heartbeat_seconds: float = 0.0  # the longest, while it was alone
    output: str = ""  # of the server, while it was alone and failed
    died: bool = False

    @property
    def cpu_seconds(self) -> float:
        return self._seconds(STATE_OF["cpu"])

    @property
    def offload_seconds(self) -> float:
        return self._seconds(STATE_OF["offload"])

    @property
    def waited_seconds(self) -> float:
        """Seconds in which a request waited for something that is not the processor, nor its client."""
        return sum(self._seconds(number) for name, number in STATE_OF.items() if name not in NO_WAITS)

    def _seconds(self, state: int) -> float:
        """Of a request; without the first one's where others came after it."""
        count = len([one for one in self.alone if one.status])
        if len(self.states) <= state:
            return 0.0
        if count > 1 and len(self.first_states) == len(self.states):
            return max(0.0, self.states[state] - self.first_states[state]) / (count - 1)
        return self.states[state] / max(1, count)

    @property
    def typical_seconds(self) -> float:
        times = sorted(one.seconds for one in self.alone if one.status)
        return times[len(times) // 2] if times else 0.0


@dataclass
class Drive:
    """All of it: each route, and what the worker said at the beginning and the end."""

    routes: list[Seen] = field(default_factory=list)
    not_asked: list[Route] = field(default_factory=list)
    why_not_asked: str = "there was no time left: --for more"
    first: dict[str, Any] = field(default_factory=dict)
    middle: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    earlier: list[dict[str, Any]] = field(default_factory=list)  # of workers that have ended
    held: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    output: str = ""
    heartbeat: list[float] = field(default_factory=list)


class Heartbeat:
    """Asks for a page that does nothing, all the time; how long that takes is how long the loop stands."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seconds: list[tuple[float, float]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stopping.wait(HEARTBEAT_SECONDS):
            answer = self.server.get(HEARTBEAT, 10.0)
            self.seconds.append((time.monotonic(), answer.seconds))

    def longest(self, since: float) -> float:
        return max((seconds for at, seconds in list(self.seconds) if at >= since), default=0.0)


def drive(
    server: Server, routes: list[Route], until: float, tell: Callable[[str], None], now: Callable[[], float]
) -> Drive:
    """Ask all `routes`, as far as there is time until then."""
    found = Drive(first=server.ask("doctor"))
    with Heartbeat(server) as heartbeat:
        for number, route in enumerate(routes):
            left = until - now()
            if left < 0.5:
                found.not_asked = routes[number:]
                break
            if found.routes and (found.routes[-1].died or not server.is_up()):
                if not _is_back(server, min(left, RESTART_SECONDS)):
                    found.not_asked, found.why_not_asked = routes[number:], "the server ended and did not start again"
                    break
                found.earlier.append(found.last)
                found.first = server.ask("doctor")
            share = max(1.0, min(12.0, 2.5 * left / (len(routes) - number)))
            tell(f"{route.name} alone")
            seen = Seen(route)
            found.routes.append(seen)
            _alone(server, seen, heartbeat, min(share, left))
            found.requests += len(seen.alone)
            if not seen.died and any(one.status for one in seen.alone) and now() < until:
                tell(f"{route.name}, {AT_ONCE} at once")
                _at_once(server, seen, min(share, max(0.5, until - now())))
                found.requests += len(seen.crowd) + len(seen.paced)
            found.last = server.ask("doctor") or found.last
        found.heartbeat = [seconds for _, seconds in heartbeat.seconds]
    if server.is_up():
        found.held = list(server.ask("snapshot").get("held", []))
    found.output = server.output()
    return found


def _is_back(server: Server, seconds: float) -> bool:
    """Whether a worker serves again after one has died; the server is started again where it has ended itself."""
    if server.is_up() and server.waits_until_it_serves(seconds):
        return True
    server.stop()
    return server.start(seconds)


def _alone(server: Server, seen: Seen, heartbeat: Heartbeat, seconds: float) -> None:
    route = seen.route
    began = time.monotonic()
    before, written = _snapshot(server), server.written()
    for number in range(ALONE_TIMES):
        left = began + seconds - time.monotonic()
        if number and (left < 0.2 or (number > 1 and seen.alone[-1].seconds > left)):
            break
        asking = _Asking(server, route, min(LONGEST_ALONE_SECONDS, max(1.0, left)))
        answer = asking.wait(lambda: _look_at_hanging(server, seen))
        seen.alone.append(answer)
        if not answer.status:
            seen.died = not server.is_up() or (answer.error != NO_ANSWER and _is_gone(before))
            break
        if not number and answer.seconds >= FIRST_SECONDS:
            seen.first_states = _states(before, _settled(server, before))
    seen.heartbeat_seconds = heartbeat.longest(began)
    after = _settled(server, before)
    if any(one.status >= 500 or not one.status for one in seen.alone):
        seen.output = server.output(written)
    seen.stalls += _new_stalls(before, after)
    seen.states = _states(before, after)
    seen.deadlocks = list(after.get("locks", {}).get("deadlocks", []))


class _Asking:
    """One request in a thread, so that somebody can look at it meanwhile."""

    def __init__(self, server: Server, route: Route, seconds: float) -> None:
        self.answer: Answer | None = None
        self.seconds = seconds
        self._thread = threading.Thread(target=self._run, args=(server, route), daemon=True)
        self._thread.start()

    def _run(self, server: Server, route: Route) -> None:
        self.answer = server.get(route.target(), self.seconds, route.headers, route.method, route.body)

    def wait(self, look: Callable[[], None]) -> Answer:
        self._thread.join(self.seconds - 0.3)
        if self._thread.is_alive():
            look()
            self._thread.join(2.0)
        return self.answer or Answer(0, self.seconds, error=NO_ANSWER)


def _look_at_hanging(server: Server, seen: Seen) -> None:
    everything = server.ask("everything", most=3)
    for request in everything.get("in_flight", []):
        for greenlet in (request.get("stacks") or {}).get("greenlets", []):
            seen.stacks += [str(line) for line in greenlet.get("stack", [])]
    current = everything.get("stalls", {}).get("current")
    if isinstance(current, dict):
        seen.stacks += [str(line) for line in current.get("stack", [])]
        seen.stalls.append({**current, "is_current": True})


def _is_gone(before: dict[str, Any]) -> bool:
    """Whether the worker that was there has ended, or is just being ended."""
    pid = before.get("pid")
    if not isinstance(pid, int):
        return False
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def _settled(server: Server, before: dict[str, Any]) -> dict[str, Any]:
    """A snapshot in which the stalls of what has just ended are told."""
    time.sleep(0.08)
    return _snapshot(server) or before


def _snapshot(server: Server) -> dict[str, Any]:
    """The worker's own snapshot, with how long its main thread has run."""
    snapshot: dict[str, Any] = server.ask("snapshot")
    return {**snapshot, "ran_seconds": ran_seconds(int(snapshot.get("pid") or 0))} if snapshot else {}


def _new_stalls(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    known = {one["at"] for one in before.get("stalls", {}).get("last", [])}
    return [one for one in after.get("stalls", {}).get("last", []) if one["at"] not in known]


def _states(before: dict[str, Any], after: dict[str, Any]) -> list[float]:
    """Seconds by state, as they would be on an idle machine.

    Waits are without the time in which the machine ran somebody else, and a request, whose slices are measured on the
    wall clock, has not computed for longer than the worker's thread ran.
    """
    old, new = before.get("seconds", []), after.get("seconds", [])
    if len(old) != len(new):
        return []
    states = [late - early for early, late in zip(old, new, strict=True)]
    if len(states) > OTHER:
        states[OTHER] = max(0.0, states[OTHER] - (_stolen(after) - _stolen(before)))
        ran = after.get("ran_seconds", 0.0) - before.get("ran_seconds", 0.0)
        states[CPU] = min(states[CPU], ran) if ran > 0 else states[CPU]
    return states


def _stolen(snapshot: dict[str, Any]) -> float:
    return float(snapshot.get("loop", {}).get("stolen_seconds", 0.0))


def _at_once(server: Server, seen: Seen, seconds: float) -> None:
    """Many at once, each with a word of its own; before that a few of the same, one after the other."""
    route = seen.route
    cpu = max(seen.cpu_seconds, seen.offload_seconds)
    wanted = AT_ONCE if cpu <= 0 else max(4, min(AT_ONCE, int(AT_ONCE_CPU_SECONDS / cpu)))
    if seen.typical_seconds > seconds / 2:
        wanted = min(wanted, 10)
    seen.at_once = wanted
    before = server.ask("snapshot")
    if route.takes_nonce:
        for _ in range(3):
            nonce = _nonce()
            seen.paced.append((nonce, _ask(server, route, nonce, seconds)))
    nonces = [_nonce() for _ in range(wanted)]
    with ThreadPoolExecutor(wanted) as pool:
        futures = [(nonce, pool.submit(_ask, server, route, nonce, seconds)) for nonce in nonces]
        while not all(future.done() for _, future in futures):
            time.sleep(LOOK_SECONDS)
            _look(server.ask("snapshot"), seen)
            if not server.is_up():
                break
        seen.crowd = [(nonce, future.result()) for nonce, future in futures]
    after = _settled(server, before)
    seen.crowd_stalls = _new_stalls(before, after)
    seen.died = not server.is_up() or (bool(after) and bool(before) and after.get("pid") != before.get("pid"))
    if not seen.deadlocks:
        seen.deadlocks = list(after.get("locks", {}).get("deadlocks", []))


def _nonce() -> str:
    """A word that nobody else says, and that is neither a number nor a secret."""
    return f"dr{secrets.token_hex(5)}"


def _ask(server: Server, route: Route, nonce: str, seconds: float) -> Answer:
    return server.get(
        route.target(nonce if route.takes_nonce else ""), max(2.0, seconds), route.headers, route.method, route.body
    )


def _look(snapshot: dict[str, Any], seen: Seen) -> None:
    """Note the waits of the requests in flight."""
    for request in snapshot.get("in_flight", []):
        if request.get("state") in ("lock", "pool", "offload"):
            seen.waits.append(
                {name: request.get(name) for name in ("state", "detail", "held_by", "state_seconds", "route")}
            )
    seen.pools += [pool for pool in snapshot.get("pools", []) if pool.get("waiting")]
    seen.executors += snapshot.get("executors", [])
    seen.deadlocks = seen.deadlocks or list(snapshot.get("locks", {}).get("deadlocks", []))
