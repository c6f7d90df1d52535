"""Answers of upstreams and databases: by status, connections that fail, and when each was last heard.

    answered    an HTTP answer, by our transport
    refused     the other side answers that nobody listens there
    timed_out   no connection in time
    full        a database that has no free slot for another connection
    failed      any other reason: no such name, no route

Counters are flat numbers for each `host:port`, so they can be added up over workers. Bounded; no lock: one thread
writes nearly always, and a count that is lost to a race is no harm.
"""

import errno
from collections.abc import Callable
from typing import Any

from .. import clock
from ..errors import BudgetSpent
from ..in_flight import CURRENT

MOST_PEERS = 200
MOST_LINES = 20
OTHER = "other"
REFUSED = (errno.ECONNREFUSED,)
TIMED_OUT = (errno.ETIMEDOUT,)
# Shortages of this server itself: no connection was tried.
OWN = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL)


class Peer:
    """One upstream or database. `heard_at` is when it last answered anything, on the monotonic clock; 0.0: never."""

    __slots__ = ("failed_at", "heard_at", "is_database", "last_failure", "lines", "numbers", "tried_at")

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.heard_at = self.failed_at = self.tried_at = 0.0
        self.last_failure = ""
        self.is_database = False
        # The application's lines that got a bad answer or no connection: (line, route, library), and how often.
        self.lines: dict[tuple[str, str, str], int] = {}

    def count(self, name: str) -> None:
        self.numbers[name] = self.numbers.get(name, 0) + 1


peers: dict[str, Peer] = {}
# A status as it is counted, made once for each.
_statuses: dict[int, str] = {}


def of(name: str) -> Peer:
    peer = peers.get(name)
    if peer is None:
        if len(peers) >= MOST_PEERS:
            name = OTHER
        peer = peers.setdefault(name, Peer())
    return peer


def asked(name: str) -> None:
    """A request asks `name` for something: how often each does shows retries."""
    calls: Any = getattr(CURRENT.get(), "calls", _none)
    if calls is None:
        CURRENT.get().calls = {name: 1}  # type: ignore[union-attr]
    elif calls is not _none:
        calls[name] = calls.get(name, 0) + 1


_none: dict[str, int] = {}


def answered(name: str, status: int) -> None:
    """An HTTP answer has come. Runs on: any greenlet; never switches."""
    peer = peers.get(name) or of(name)
    key = _statuses.get(status)
    if key is None:
        key = _statuses[status] = f"status_{status}" if 100 <= status < 600 else "status_other"
    peer.numbers[key] = peer.numbers.get(key, 0) + 1
    peer.heard_at = clock.now()
    if status >= 500 or status == 429:
        note_line(peer)


# Finds the application's line that called, and through which library, if anybody wants to know.
find_caller: Callable[[], tuple[str, str]] | None = None


def note_line(peer: Peer) -> None:
    record: Any = CURRENT.get()
    if find_caller is None or record is None or not hasattr(record, "pattern"):
        return
    line, library = find_caller()
    key = line, record.pattern(), library
    if key in peer.lines or len(peer.lines) < MOST_LINES:
        peer.lines[key] = peer.lines.get(key, 0) + 1


def not_connected(name: str, exc: BaseException) -> None:
    """No connection to `name` came about. An attempt that ended with its request is nobody's failure."""
    if isinstance(exc, BudgetSpent) or getattr(exc, "errno", None) in OWN:
        return
    kind = "failed"
    if getattr(exc, "errno", None) in REFUSED:
        kind = "refused"
    elif isinstance(exc, TimeoutError) or getattr(exc, "errno", None) in TIMED_OUT:
        kind = "timed_out"
    failed(name, kind, str(exc))


def failed(name: str, kind: str, words: str) -> None:
    peer = of(name)
    note_line(peer)
    peer.count(kind)
    peer.last_failure = words[:200]
    peer.failed_at = clock.now()


def finished(name: str, calls: int) -> None:
    """A request that has asked `name` so often is over."""
    peer = of(name)
    peer.numbers["requests"] = peer.numbers.get("requests", 0) + 1
    peer.numbers["calls"] = peer.numbers.get("calls", 0) + calls
