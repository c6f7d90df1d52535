"""Which clients the requests come from: the few that send most, in memory that is bounded.

    client    the address that connects; behind a trusted proxy, the last one in X-Forwarded-For

The heaviest are found as in the "space saving" algorithm (Metwally, Agrawal, El Abbadi 2005): a client that is new
takes the place of the smallest, with its count. All counts are halved again and again, so that they are of lately.
"""

from typing import Any

MOST_CLIENTS = 64
HALVE_EVERY_TICKS = 10
SHOWN = 5
MOST_REASONS = 30
PRIVATE = ("10.", "192.168.", "127.", "172.16.", "fd", "fe80:", "::1")
CLASSES = ("forwarded", "private", "public", "local")


class Clients:
    """Those of one worker. Runs on: the loop's thread; anybody may read."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}
        self.shed: dict[str, int] = {}  # by class of client, since the start
        self.refused: dict[str, int] = {}  # by the class of gunicorn's exception, since the start
        self._ticks = 0

    def came(self, environ: dict[str, Any], *, is_peer_trusted: bool) -> str:
        """A request has come; returns its client."""
        name = address_of(environ, is_peer_trusted=is_peer_trusted)
        counts = self.counts
        if name in counts:
            counts[name] += 1.0
        elif len(counts) < MOST_CLIENTS:
            counts[name] = 1.0
        else:
            smallest = min(counts, key=counts.__getitem__)
            counts[name] = counts.pop(smallest) + 1.0
        return name

    def turned_away(self, environ: Any, *, is_peer_trusted: bool) -> None:
        name = "local"
        if isinstance(environ, dict):
            self.came(environ, is_peer_trusted=is_peer_trusted)
            name = class_of(environ, is_peer_trusted=is_peer_trusted)
        self.shed[name] = self.shed.get(name, 0) + 1

    def refuse(self, exc: Exception) -> None:
        """A request could not be read, or broke a limit of its head. Runs on: hub."""
        name = type(exc).__name__
        if name in self.refused or len(self.refused) < MOST_REASONS:
            self.refused[name] = self.refused.get(name, 0) + 1

    def tick(self) -> None:
        """Let older requests count less; called about once a second."""
        self._ticks += 1
        if self._ticks % HALVE_EVERY_TICKS == 0:
            self.counts = {name: count / 2 for name, count in self.counts.items() if count > 1}

    def as_dict(self) -> dict[str, Any]:
        counts = dict(self.counts)
        most = sorted(counts, key=counts.__getitem__, reverse=True)[:SHOWN]
        return {
            "total": sum(counts.values()),
            "known": len(counts),
            "top": [{"client": name, "count": counts[name]} for name in most],
            "shed": dict(self.shed),
            "refused": dict(self.refused),
        }


def address_of(environ: dict[str, Any], *, is_peer_trusted: bool) -> str:
    if is_peer_trusted:
        forwarded = environ.get("HTTP_X_FORWARDED_FOR")
        if forwarded:
            return str(forwarded).rpartition(",")[2].strip()[:45]
    return str(environ.get("REMOTE_ADDR") or "a unix socket")


def class_of(environ: dict[str, Any], *, is_peer_trusted: bool) -> str:
    if is_peer_trusted and environ.get("HTTP_X_FORWARDED_FOR"):
        return "forwarded"
    address = str(environ.get("REMOTE_ADDR") or "")
    return "local" if not address else "private" if address.startswith(PRIVATE) else "public"
