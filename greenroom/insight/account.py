"""One request's time, each moment of it in exactly one state, and so adding up to its total.

A request is what its greenlet does and what greenlets and threads do that it started. Its state is the first of these
that is true:

    cpu      one of them runs
    ready    one of them could run, and waits for its turn in the loop
    kind     what they wait for: the main greenlet's wait, or if that waits for the others (a lock, a join), theirs

Time is charged when one of them begins or ends a slice, so that costs nothing while they wait. The cause of a wait is
known when a slice ends. When the next one begins, the time between is split in the moment the greenlet became ready:

    the loop idled before this turn     it became ready when the loop woke: exact
    the loop was busy                   it came while the last turn ran, and nobody saw when: the middle between that
                                        turn's beginning, or the wait's, and its end is right on average
    it ended its last slice since then  at once: it was never waiting, or whoever woke it ran in this turn

A request's own arrival is judged in the same way, so the time that it waited in the kernel for a busy loop is `ready`.

cpu is measured on the wall clock, as the admission does it (see worker/load.py); what is known to have been stolen from
the process in a long slice is taken out again (see stalls).
"""

from collections.abc import Iterable
from typing import Any

from greenlet import greenlet

from ..in_flight import Record, Wait

# The order of Account.seconds, and of each list of seconds by state anywhere in insight.
STATES = ("cpu", "ready", "upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other")
CPU, READY, UPSTREAM = range(3)
OTHER = len(STATES) - 1
STATE_OF = {name: number for number, name in enumerate(STATES)}
NOTHING = (0.0,) * len(STATES)
# These can be waits for the request's own other greenlets.
FOR_OTHERS = ("lock", "other")
MOST_HELPERS = 32
OTHER_ROUTE = "other"
# It waits; for what, is looked up when somebody asks. Mostly it goes on in the same turn, and nobody does.
WAITING = -1


class Account(Record):
    """A request with its time. `since` is when `state` began; `began` when the request came.

    `helpers` are the greenlets that it started and that have run. `detail` says what is waited for: a host, a query
    without values, a pool. `route` is the pattern of the route that answers, once somebody has asked: see `pattern`.
    `holds` are the database connections that it used, `keeps` the lines at which it keeps one while it waits now, and
    `kept` how long it did: see held. `client` is who asks (see clients). `calls` are its calls to each upstream,
    `queries` those at each line: see queries. `has_failed`: an exception of it was noted.
    """

    __slots__ = (
        "began",
        "calls",
        "client",
        "_state",
        "code",
        "ended",
        "has_failed",
        "has_waited",
        "helpers",
        "holds",
        "hosts",
        "kept",
        "queries",
        "keeps",
        "route",
        "seconds",
        "since",
    )

    def __init__(self, arrived: float) -> None:
        Record.__init__(self, arrived)
        self.began = self.since = arrived
        self.ended = 0.0
        self.code = 0  # the status that was answered, when it is over
        self.has_waited = self.has_failed = False
        self.client = ""
        self.calls: dict[str, int] | None = None
        self.queries: dict[tuple[int, int], list[Any]] | None = None
        self._state = READY
        self.seconds = list(NOTHING)
        self.helpers: dict[Any, None] | None = None
        self.hosts: dict[str, float] | None = None
        self.route = ""
        self.holds: list[Any] | None = None
        self.keeps: tuple[str, str] | None = None
        self.kept: dict[tuple[str, str], float] | None = None

    def pattern(self) -> str:
        """The pattern of the application's route that answers, or "other".

        Werkzeug, and so Flask, leaves its request in the environ; until the view is over, so whoever will need the
        answer asks before.
        """
        if not self.route and self.environ is not None:
            request = self.environ.get("werkzeug.request")
            if request is not None:
                # Past whatever a class of the application's may do when it is asked for attributes.
                rule = _own(request, "url_rule")
                pattern = None if rule is None else _own(rule, "rule")
                if type(pattern) is str:
                    self.route = pattern
        return self.route or OTHER_ROUTE

    @property
    def state(self) -> int:
        return self.waits_in()[0] if self._state == WAITING else self._state

    @property
    def detail(self) -> str:
        return self.waits_in()[1] if self._state == WAITING else ""

    def waits_in(self) -> tuple[int, str]:
        """The state and the detail of what it waits for now."""
        wait = self.wait() if self.waits else None
        return (OTHER, "") if wait is None else (STATE_OF[wait.kind], wait.detail)

    def total_seconds(self, now: float) -> float:
        return (self.ended or now) - self.began

    def seconds_at(self, now: float) -> list[float]:
        """Return the seconds spent in each state, including the one it is in."""
        seconds = list(self.seconds)
        if not self.ended:
            seconds[self.state] += max(0.0, now - self.since)
        return seconds

    def wait(self) -> Wait | None:
        """Return the wait that holds up the request as a whole, as far as one was reported."""
        waits = tuple(self.waits)
        if len(waits) == 1:
            return waits[0]
        inner: dict[int, Wait] = {}
        for wait in waits:
            known = inner.get(id(wait.greenlet))
            if known is None or (wait.since >= known.since and not (known.kind == wait.kind == "lock")):
                inner[id(wait.greenlet)] = wait  # that of a queue, not of the lock in it
        own = inner.pop(id(self.greenlet), None)
        if own is not None and own.kind not in FOR_OTHERS:
            return own
        others = [wait for wait in inner.values() if wait.kind not in FOR_OTHERS]
        return min(others, key=_since) if others else own or next(iter(inner.values()), None)

    def slept(self, until: float) -> None:
        """Charge what it waited for up to `until`, when it became ready."""
        waited = until - self.since
        state, detail = self.waits_in() if self._state == WAITING else (self._state, "")
        self.seconds[state] += waited
        self.since = until
        if state == UPSTREAM:
            self.hosts = self.hosts or {}
            self.hosts[detail] = self.hosts.get(detail, 0.0) + waited
            if self.keeps is not None:
                self.kept = self.kept or {}
                self.kept[self.keeps] = self.kept.get(self.keeps, 0.0) + waited

    def adopt(self, helper: greenlet) -> None:
        """A greenlet that this request started has begun to run."""
        helpers = self.helpers
        if helpers is None:
            self.helpers = {helper: None}
        elif helper not in helpers:
            if len(helpers) >= MOST_HELPERS:
                self.helpers = helpers = {one: None for one in helpers if not one.dead}
            helpers[helper] = None


def _since(wait: Wait) -> float:
    return wait.since


def _own(thing: Any, name: str) -> Any:
    """An attribute that is stored in the object itself, without running code of its class; None if there is none."""
    try:
        return object.__getattribute__(thing, "__dict__").get(name)
    except AttributeError:
        return None


def add(total: list[float], seconds: Iterable[float]) -> None:
    for number, some in enumerate(seconds):
        if some:
            total[number] += some
