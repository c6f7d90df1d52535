"""The gain of each route: the same load under one sync worker, gthread and Greenroom."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from .driving import Seen
from .server import HEARTBEAT, Answer, Server
from .shapes import RouteRow

KINDS = ("sync", "gthread", "greenroom")
CLIENTS = 20
NOT_MEASURED = "not measured"
ALONE_TIMES = 2
# A share of its time that a route computes; from here on no server makes it faster.
COMPUTES_SHARE = 0.8
COMPUTES_SECONDS = 0.008
COMPUTES_MUCH_SECONDS = 0.05
# Below this share of a sync worker's requests it is no noise.
FEWER_SHARE = 0.67
SETTLED_SECONDS, SETTLES_SECONDS = 0.02, 1.5
# A route that waits for less, or for a smaller share of what it computes, gains nothing that can be told from noise.
WAITS_SECONDS, WAITS_SHARE = 0.0005, 0.2


@dataclass
class Measured:
    """One route under one kind of worker."""

    rate: float = 0.0
    p95_seconds: float = 0.0
    errors: int = 0


@dataclass
class Gain:
    seen: Seen
    by_kind: dict[str, Measured] = field(default_factory=dict)
    sync_answers: list[Answer] = field(default_factory=list)

    def sentence(self) -> str:
        seen = self.seen
        if not all(one.is_good for one in seen.alone):
            return NOT_MEASURED
        if computes(seen):
            return f"computes {computed_share(seen):.0%} of its time: nothing to gain"
        sync, ours = self.by_kind.get("sync"), self.by_kind.get("greenroom")
        if sync is None or ours is None or not ours.rate:
            return NOT_MEASURED
        if not sync.rate:
            return "one sync worker answered none of them in that time" if sync.errors else NOT_MEASURED
        factor = ours.rate / sync.rate
        if factor >= 1.2 and waits(seen):
            return f"{factor:.1f} times the requests of one sync worker"
        if factor <= FEWER_SHARE:
            return f"fewer requests than one sync worker: {factor:.0%}"
        if seen.cpu_seconds + seen.offload_seconds >= COMPUTES_MUCH_SECONDS:
            return "as many requests as one sync worker: it computes, and hardly waits"
        return "as many requests as one sync worker: it hardly waits"

    def as_dict(self) -> RouteRow:
        seen = self.seen
        return {
            "route": seen.route.name,
            "place": seen.route.place,
            "statuses": sorted({one.status for one in seen.alone}),
            "seconds": round(seen.typical_seconds, 4),
            "computes_seconds": round(seen.cpu_seconds, 4),
            "at_once": seen.at_once,
            "rates": {
                kind: {"requests_per_second": round(one.rate, 1), "p95_seconds": round(one.p95_seconds, 4)}
                for kind, one in self.by_kind.items()
            },
            "gains": self.sentence(),
        }


def settle(server: Server, seconds: float) -> None:
    """Wait until the worker has done what an earlier route's clients have left in its queue, for so long at most."""
    until = time.monotonic() + min(seconds, SETTLES_SECONDS)
    quick = 0
    while quick < 3 and (left := until - time.monotonic()) > 0:
        quick = quick + 1 if server.get(HEARTBEAT, left).seconds < SETTLED_SECONDS else 0


def measure(server: Server, seen: Seen, seconds: float) -> Measured:
    """Clients for so long; each asks again as soon as it has its answer.

    As many as are answered in that time, one after the other under sync, one computing after the other elsewhere: what
    is left in a queue at the end would be in the way of the next route.
    """
    until = time.monotonic() + seconds
    each = seen.typical_seconds if server.kind == "sync" else seen.cpu_seconds + seen.offload_seconds
    clients = max(1, min(CLIENTS, int(seconds / max(0.001, each))))
    times: list[float] = []
    errors: list[int] = []
    route = seen.route

    def client() -> None:
        while (left := until - time.monotonic()) > 0:
            answer = server.get(route.target(), left + 1.0, route.headers, route.method, route.body)
            if answer.is_good:
                times.append(answer.seconds)
            else:
                errors.append(answer.status)
                time.sleep(0.02)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 2.0)
    took = max(0.001, time.monotonic() - began)
    ordered = sorted(times)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))] if ordered else 0.0
    return Measured(len(ordered) / took, p95, len(errors))


def asked(server: Server, seen: Seen, seconds: float) -> list[Answer]:
    """The answers to a route's request, one after the other; none if all would take longer than `seconds`.

    A stream that never ends is none to be compared.
    """
    if ALONE_TIMES * seen.typical_seconds > seconds:
        return []
    each = min(5.0, max(1.0, seconds / ALONE_TIMES))
    return [server.get(seen.route.target(), each, seen.route.headers) for _ in range(ALONE_TIMES)]


def computes(seen: Seen) -> bool:
    """Whether a route computes most of its time: no server makes that faster."""
    return seen.cpu_seconds + seen.offload_seconds >= COMPUTES_SECONDS and computed_share(seen) >= COMPUTES_SHARE


def computed_share(seen: Seen) -> float:
    """The share that a request computes of what it takes on an idle machine; 0.0 where nothing is known of it."""
    computed = seen.cpu_seconds + seen.offload_seconds
    return computed / (computed + seen.waited_seconds) if computed else 0.0


def waits(seen: Seen) -> bool:
    """Whether requests wait for anything but the processor: else what differs between two servers is the machine."""
    if not seen.states or not any(one.status for one in seen.alone):
        return True
    return seen.waited_seconds >= max(WAITS_SECONDS, WAITS_SHARE * seen.cpu_seconds)


def worth_measuring(seen: Seen) -> bool:
    return bool(seen.alone) and all(one.is_good for one in seen.alone) and not seen.died and not computes(seen)


def as_list(gains: Mapping[str, Gain]) -> list[RouteRow]:
    return [gain.as_dict() for gain in gains.values()]
