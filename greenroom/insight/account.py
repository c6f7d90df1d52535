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

from collections.abc import Callable, Iterable
from typing import Any

from greenlet import getcurrent, gettrace, greenlet, settrace

from .. import clock
from ..in_flight import Record, Wait
from ..in_flight import current as get_current
from .greenlets import Others, record_of

# The order of Account.seconds, and of each list of seconds by state anywhere in insight.
STATES = ("cpu", "ready", "upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other")
CPU, READY, UPSTREAM = range(3)
OTHER = len(STATES) - 1
STATE_OF = {name: number for number, name in enumerate(STATES)}
NOTHING = (0.0,) * len(STATES)
# These can be waits for the request's own other greenlets.
FOR_OTHERS = ("lock", "other")
# A poll that took less than this found what had come while the loop was busy; with a timer that is due libev's takes up
# to a millisecond all the same. After a long turn more is likely to have come in that turn than in a short poll.
IDLE_SECONDS = 0.0001
LONGEST_POLL_SECONDS = 0.0015
POLL_SHARE = 1 / 8
MOST_HELPERS = 32
OTHER_ROUTE = "other"


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
        "code",
        "detail",
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
        "state",
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
        self.state = READY
        self.detail = ""
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
        self.seconds[self.state] += waited
        self.since = until
        if self.state == UPSTREAM:
            self.hosts = self.hosts or {}
            self.hosts[self.detail] = self.hosts.get(self.detail, 0.0) + waited
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


class Slices:
    """Charges every slice of the loop's thread, at the switch that ends it.

    `on_long(began, ended, account, greenlet)` is told of slices above `long_seconds`; `account` is None for those of
    no request, `greenlet` is the one that ran. `turns` are those of the loop. All is written by the loop's thread, and
    read by the watch thread. Runs on: hub, and at the edge of each greenlet's slice. Must not raise: greenlet would end
    the tracing.
    """

    __slots__ = (
        "began",
        "background_seconds",
        "beside",
        "current",
        "failures",
        "finished",
        "held",
        "hub",
        "hub_seconds",
        "is_parting",
        "late_turns",
        "live",
        "long_seconds",
        "now",
        "on_long",
        "others",
        "ready_from",
        "request_seconds",
        "running",
        "turn_began",
        "turns",
    )

    def __init__(
        self,
        hub: Any,
        turns: Any,
        long_seconds: float,
        on_long: Callable[[float, float, Account | None, Any], None],
        held: Any = None,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.hub = hub
        self.turns = turns
        self.long_seconds = long_seconds
        self.on_long = on_long
        self.held = held  # a Held
        self.now = now
        self.running: Account | None = None
        self.current: Any = hub  # the greenlet that runs
        self.began = self.turn_began = self.ready_from = now()
        self.is_parting = False
        self.request_seconds = self.background_seconds = self.hub_seconds = 0.0
        self.finished = self.late_turns = self.failures = 0
        self.others = Others()
        self.beside: dict[int, float] = {}  # slices of no request, by their greenlet's id: see beside.py
        # Requests that are in flight, oldest first.
        self.live: dict[Account, None] = {}

    def install(self) -> None:
        """Be told of each switch in this thread. An earlier listener is told no more."""
        settrace(self.switched)

    def remove(self) -> None:
        if gettrace() == self.switched:
            settrace(None)

    def begin(self, account: Account) -> None:
        """A request's greenlet has just begun to run for it, and set it as the current record."""
        now = self.now()
        came = (self.ready_from + self.turn_began) / 2
        if account.arrived < came:
            came = account.arrived  # it stood in line
        account.began = came
        account.seconds[READY] = now - came
        account.state = CPU
        account.since = now
        account.greenlet = getcurrent()
        self.running = account
        self.current = account.greenlet
        self.live[account] = None
        # The hub's work before that (reading the head) is charged to the hub.
        self.hub_seconds += now - self.began
        self.began = now

    def finish(self, account: Account) -> None:
        """Its answer is written, and the greenlet about to end."""
        now = self.now()
        account.seconds[CPU] += now - account.since
        account.since = account.ended = now
        for helper in account.helpers or ():
            self.others.add(helper)  # it is left behind, if it lives
        account.greenlet = account.helpers = None
        self.live.pop(account, None)
        self.finished += 1
        self.request_seconds += now - self.began
        if now - self.began > self.long_seconds:
            self._tell(self.began, now, account, getcurrent())
        self.running = None
        self.is_parting = True
        self.began = now

    def is_idle(self) -> bool:
        """Whether the loop waits for something to happen."""
        return bool(self.turns.ended_at >= self.turns.began_at)

    def turned(self, ended: float, began: float) -> None:
        """The loop has polled from `ended` until `began`: a turn begins."""
        self.hub_seconds += ended - self.began
        took = ended - self.turn_began
        if took > self.long_seconds:
            self.late_turns += 1
            if ended - self.began > self.long_seconds:
                self._tell(self.began, ended, None, self.hub)
        idle = began - ended
        if idle > IDLE_SECONDS and (idle > LONGEST_POLL_SECONDS or idle > POLL_SHARE * took):
            self.ready_from = began
        else:
            self.ready_from = self.turn_began
        self.turn_began = self.began = began

    def switched(self, event: str, switch: tuple[Any, Any]) -> None:
        """greenlet's trace function: called in the greenlet that begins to run, with its context."""
        now = self.now()
        began = self.began
        origin, target = switch
        account: Any = self.running
        if account is not None:
            self.request_seconds += now - began
            if now - began > self.long_seconds:
                self._tell(began, now, account, origin)
            self._suspend(account, now)
        elif self.is_parting:  # with what the worker does after a request
            self.is_parting = False
            self.hub_seconds += now - began
        elif origin is self.hub:
            self.hub_seconds += now - began
            if now - began > self.long_seconds:
                self._tell(began, now, None, origin)
        else:
            self._ran_without(began, now, origin)
        self.began = now
        self.current = target
        account = get_current()
        if account is None or type(account) is not Account or account.ended:
            self.running = None
            if target is not self.hub and id(target) not in self.others.references:
                self.others.add(target)
            return
        self.running = account
        self._resume(account, now)
        if target is not account.greenlet:
            account.adopt(target)

    def _ran_without(self, began: float, now: float, greenlet: Any) -> None:
        """A slice began for no request; a pool's thread may have taken a request's job within it."""
        account = record_of(greenlet)
        if type(account) is not Account or account.ended:
            self.background_seconds += now - began
            self.beside[id(greenlet)] = self.beside.get(id(greenlet), 0.0) + now - began
            account = None
        else:
            self.request_seconds += now - began
            self._resume(account, began)
            self._suspend(account, now)
        if now - began > self.long_seconds:
            self._tell(began, now, account, greenlet)

    def _resume(self, account: Account, now: float) -> None:
        since, turn_began = account.since, self.turn_began
        if since < turn_began:
            ready_from = self.ready_from
            account.slept(((ready_from if ready_from > since else since) + turn_began) / 2)
        account.seconds[READY] += now - account.since
        account.state = CPU
        account.since = now

    def _suspend(self, account: Account, now: float) -> None:
        account.seconds[CPU] += now - account.since
        account.since = now
        wait = account.wait() if account.waits else None
        account.has_waited = True
        if wait is None:
            account.state = OTHER
            account.detail = ""
        else:
            account.state = STATE_OF[wait.kind]
            account.detail = wait.detail
            if account.holds is not None:
                account.keeps = None
                if account.state == UPSTREAM:
                    account.keeps = self._ask_keeper(account, wait)

    def _ask_keeper(self, account: Account, wait: Wait) -> tuple[str, str] | None:
        try:
            return self.held.suspended(account, wait.detail, wait.greenlet)  # type: ignore[no-any-return]
        except Exception:  # see _tell
            self.failures += 1
            return None

    def _tell(self, began: float, ended: float, account: Account | None, greenlet: Any) -> None:
        try:
            self.on_long(began, ended, account, greenlet)
        except Exception:
            # Raised here it would end the tracing, and come out of a switch that has nothing to do with it.
            self.failures += 1

    def job_changed(self) -> None:
        """The greenlet that runs goes on for another request, or for none: a pool's thread between two jobs."""
        current, account = getcurrent(), get_current()
        if self.running is None and self.current is current and type(account) is Account and not account.ended:
            self.running = account  # a job begins: what the thread did before it in this slice was to take it
            self._resume(account, self.began)
            account.adopt(current)
        else:
            self.switched("switch", (current, current))


def add(total: list[float], seconds: Iterable[float]) -> None:
    for number, some in enumerate(seconds):
        if some:
            total[number] += some
