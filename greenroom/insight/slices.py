"""The slices of greenlets in the loop's thread, each charged to its request when it ends: see account."""

from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, gettrace, settrace

from .. import clock
from ..in_flight import Wait
from ..in_flight import current as get_current
from .account import CPU, READY, WAITING, Account
from .greenlets import Others, record_of

# A poll that took less than this found what had come while the loop was busy; with a timer that is due libev's takes up
# to a millisecond all the same. After a long turn more is likely to have come in that turn than in a short poll.
IDLE_SECONDS = 0.0001
LONGEST_POLL_SECONDS = 0.0015
POLL_SHARE = 1 / 8


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
        account._state = CPU
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
        account._state = CPU
        account.since = now

    def _suspend(self, account: Account, now: float) -> None:
        account.seconds[CPU] += now - account.since
        account.since = now
        account.has_waited = True
        account._state = WAITING
        if account.holds is not None:
            account.keeps = None
            wait = account.wait() if account.waits else None
            if wait is not None and wait.kind == "upstream":
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
