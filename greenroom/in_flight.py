"""The worker's record of one request while it runs: when it came, until when it may take, what it waits for; its end.

The record is in a context variable: threads and greenlets that a request starts have it too, nothing else has one.

    arrived ──budget──> the end: the client is answered (`on_end`)
                           └─> the first end: what the request's own greenlet waits for is ended, if it may be
                                 └──grace, in which everything works──> from then on each wait that may be ended is

`cut` brings the end forward to this moment: the client has left, or the worker stops.

Which waits end (see Wait): those that say so, and nothing else. One that nobody has named goes on.

    NEVER        a blocking socket without a timeout, a pipe: ending it would leave something half-done
    UNLOCKED     of the request's own greenlet, unless it holds a lock of threading: sleep, queues, events, conditions
    OWN          of the request's own greenlet: locks, subprocesses, sockets with a timeout
    EVERYWHERE   those of the threads and greenlets that it started, too, at the end, once: upstreams, databases

Code that holds a lock may have asked a question through a client that others share, and waits for the answer: the next
caller would get it. When it computes at the end, its next wait is ended; when it waits for what may not be, the grace
begins with the next that may. Behind each wait that is ended after a grace comes another, half as long. A request that
is over ends nothing.
"""

import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, ClassVar, Literal, Self
from wsgiref.types import WSGIEnvironment

from gevent import get_hub
from gevent._hub_local import get_hub_if_exists
from gevent.hub import Hub
from greenlet import getcurrent

from . import clock, slowing
from .errors import BudgetSpent

logger = logging.getLogger(__name__)

FOREVER = float("inf")
# The kinds of waits. "other": everything that has no kind of its own.
Kind = Literal["upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other"]
# The greenlets whose waits may be ended: see above.
NEVER, UNLOCKED, OWN, EVERYWHERE = 0, 1, 2, 3
# The bound of the running code's waits: the end; the end of the grace; nothing.
BARE, CLEAN_UP, UNBOUNDED = 0, 1, 2
SHIELD: ContextVar[int] = ContextVar("greenroom.shield", default=BARE)
# Why a request was cut.
CLIENT_LEFT = "the client has left"
WORKER_STOPS = "the worker stops"
plain_switch = super(Hub, Hub).switch  # gevent's own, in C, whatever somebody has put over it (ddtrace does)


class Record:
    """One request. Times are `clock.now()` seconds.

    `deadline` is the moment after which nobody wants the answer; `is_cut` says that it has been brought forward, and
    `cut_reason` why. `greenlet` is the request's own. `waits` are the waits that go on right now, innermost and outer
    ones of each greenlet that works for this request; `waiting` are the greenlets that are switched out, each with the
    shield it has. Each lock that its own greenlet holds refers to `lock_mark`: counting these references costs least
    where locks are taken. The record is also what applications find in environ["greenroom.deadline"].
    """

    __slots__ = (
        "answer",
        "arrived",
        "asked",
        "became",
        "clean_up_at_most",
        "clean_up_until",
        "cut_reason",
        "deadline",
        "environ",
        "greenlet",
        "hub",
        "id",
        "is_cut",
        "is_end_owed",
        "is_ended",
        "is_grace_owed",
        "is_over",
        "lock_mark",
        "on_end",
        "refusals",
        "timer",
        "waiting",
        "waits",
        "__weakref__",
    )

    # The grace: a setting, the same for all requests of a process.
    clean_up_seconds: ClassVar[float] = 5.0

    def __init__(
        self, arrived: float, deadline: float = FOREVER, id: str = "", environ: WSGIEnvironment | None = None
    ) -> None:
        """Runs on: the request's own greenlet."""
        self.arrived = arrived
        self.asked: tuple[str, ...] = ()  # method and target, for those who name it when it is over
        self.deadline = deadline
        self.id = id
        self.environ = environ
        self.answer: Any = None  # the response, from when it is known
        self.greenlet: Any = getcurrent()
        self.hub: Any = None  # from when it first waits
        self.became = ""  # "websocket", "taken over": no budget, and nobody cuts it
        self.is_cut = False
        self.is_ended = False  # spent or cut, and `on_end` has been told
        self.is_end_owed = True  # no wait has been ended yet
        self.is_grace_owed = False  # instead of an end
        self.is_over = False
        self.on_end: Callable[[Record], None] | None = None  # called once, in the hub: the client is answered then
        self.cut_reason = ""
        self.clean_up_until = self.clean_up_at_most = FOREVER  # the first is known when it has ended
        self.refusals = 0
        self.timer: Any = None
        self.waits: dict[Wait, None] = {}  # half as dear to make as a set, and a third as large
        self.waiting: dict[Any, int] = {}
        self.lock_mark = object()

    # The budget

    def remaining_seconds(self, now: Callable[[], float] = clock.now) -> float:
        """Return the rest of the budget, never below 0; infinite when there is none."""
        left = self.deadline - now()
        return left if left > 0.0 else 0.0

    def set(self, seconds: float | None) -> None:
        """Give the request `seconds` from now on; None: as long as it takes. Once spent, a budget stays spent."""
        self._change(FOREVER if seconds is None else clock.now() + seconds)

    def extend(self, seconds: float) -> None:
        """Give the request `seconds` more than it has. Once spent, a budget stays spent."""
        self._change(self.deadline + seconds)

    def lift(self) -> None:
        """No budget from now on. Once spent, a budget stays spent."""
        self._change(FOREVER)

    def release(self, became: str) -> None:
        """No budget, and nothing else that ends it: the request has become something else, a websocket say."""
        self.became = became
        self.on_end = None
        self.lift()

    def _change(self, deadline: float) -> None:
        """Runs on: any greenlet of any thread."""
        if self.is_spent():
            return
        self.deadline = deadline
        if self.hub is None:
            return  # it has not waited yet
        if get_hub_if_exists() is self.hub:
            self.keep_time()
        else:
            self.hub.loop.run_callback_threadsafe(self.keep_time)

    def is_spent(self) -> bool:
        """Whether the budget is over: nobody wants the answer any more."""
        return self.is_cut or self.deadline <= clock.now()

    def why(self) -> str:
        """Explain the end of the budget, for the caller who gets the timeout error."""
        return self.cut_reason or f"the request's budget of {self.deadline - self.arrived:.3g} s is spent"

    def left_seconds(self, shield: int) -> float:
        """How long a wait of ours may last that the caller begins now; infinite where nothing is known to end it."""
        if shield == UNBOUNDED or self.is_over:
            return FOREVER
        now = clock.now()
        if now < self.deadline:
            # Nobody knows yet when the grace will end.
            return self.deadline - now if shield == BARE else FOREVER
        if getcurrent() is not self.greenlet:
            return FOREVER
        if shield == BARE and self.is_end_owed:
            return 0.0
        until = self.clean_up_until if self.is_ended and not self.is_grace_owed else now + self.clean_up_seconds
        return max(0.0, until - now)

    # The end

    def cut(self, reason: str, clean_up_seconds: float | None = None) -> None:
        """End the request now. `clean_up_seconds` is all that it may take from now on, where that is known.

        Runs on: any greenlet of the worker's hub. It takes effect in the next turn of the loop.
        """
        if self.is_over or self.became:
            return
        now = clock.now()
        if clean_up_seconds is not None:
            self.clean_up_at_most = min(self.clean_up_at_most, now + clean_up_seconds)
            self.clean_up_until = min(self.clean_up_until, self.clean_up_at_most)
        if not self.is_cut and not self.is_ended:
            self.is_cut = True
            self.cut_reason = reason
            self.deadline = min(self.deadline, now)
        get_hub().loop.run_callback(self.expire)

    def finish(self) -> None:
        """The request is answered, and whatever it leaves behind is free. Runs on: the request's own greenlet."""
        self.is_ended = self.is_ended or self.is_spent()
        self.is_over, self.deadline = True, FOREVER
        self.greenlet = self.on_end = None
        self.stop_timer()

    def keep_time(self) -> None:
        """See to it that `expire` is called when there is something for it to do. Runs on: any greenlet of the hub."""
        self.stop_timer()
        if (at := self._next_at()) == FOREVER:
            return
        if self.hub is None:
            self.hub = get_hub()
        self.timer = self.hub.loop.timer(max(0.0, at - clock.now()))
        self.timer.start(self.expire, update=True)

    def _next_at(self) -> float:
        if self.is_over:
            return FOREVER
        if not self.is_ended:
            return self.deadline
        if self._endable_wait() is None or self.waiting[self.greenlet] == UNBOUNDED:
            return FOREVER  # the next wait comes here, too
        if self.is_grace_owed:
            self._first_end()
        now = clock.now()
        if self.is_end_owed and self.waiting[self.greenlet] == BARE:
            return now
        if now < self.clean_up_until:
            return self.clean_up_until
        return now + slowing.seconds(self.refusals)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
            self.timer = None

    def expire(self) -> None:
        """Do what is due: tell that the request has ended, and end what it waits for. Runs on: hub."""
        if self.is_over:
            return
        if is_end := not self.is_ended and self.is_spent():
            self._end()
        if self.is_ended:
            self._end_own_wait()
        if is_end and self.is_end_owed and self.greenlet in self.waiting:
            self.is_end_owed, self.is_grace_owed = False, True
        self.keep_time()

    def _end(self) -> None:
        self.is_ended = True
        self.clean_up_until = min(clock.now() + self.clean_up_seconds, self.clean_up_at_most)
        if self.on_end is not None:
            try:
                self.on_end(self)
            except Exception:  # the request's waits have to end in any case, and the hub has to go on
                logger.exception("a client could not be told that its request has ended")
        helpers = {wait.greenlet: wait for wait in self.waits if wait.greenlet is not self.greenlet}  # innermost ones
        for helper, wait in helpers.items():
            if wait.ends == EVERYWHERE and wait in self.waits and self.waiting.get(helper) == BARE:
                wait.end(self)

    def _endable_wait(self) -> "Wait | None":
        """The wait of the request's own greenlet at this moment, if it may be ended."""
        if (me := self.greenlet) not in self.waiting:
            return None
        wait = next((wait for wait in reversed(self.waits) if wait.greenlet is me), None)
        return wait if wait is not None and wait.can_end() else None

    def _end_own_wait(self) -> None:
        if (wait := self._endable_wait()) is None:
            return
        shield = self.waiting[self.greenlet]
        if self.is_end_owed and shield == BARE:
            self._first_end()
            outermost = wait
            for outer in reversed(self.waits):
                if outer.greenlet is self.greenlet:
                    if not outer.can_end():
                        break
                    outermost = outer
            outermost.has_passed = True
            wait.end(self)
        elif shield != UNBOUNDED and self.clean_up_until <= clock.now():
            self._count_refusal(self.greenlet.gr_frame)
            wait.end(self)

    def _first_end(self) -> None:
        self.is_end_owed = self.is_grace_owed = False
        self.clean_up_until = min(clock.now() + self.clean_up_seconds, self.clean_up_at_most)

    def refuses(self, shield: int) -> bool:
        """Whether a wait is not even to begin. That it does not is an end as any other.

        Runs on: any greenlet; switches where the end has not been told yet, and where it has refused often.
        """
        if self.is_over or shield == UNBOUNDED or self.deadline > clock.now() or getcurrent() is not self.greenlet:
            return False
        if not self.is_ended:
            # It has computed past its deadline. The edge answers before the application can learn of it.
            hub: Any = get_hub()
            hub.loop.run_callback(self.expire)
            hub.loop.run_callback(self.greenlet.switch)
            plain_switch(hub)
        if self.is_end_owed and shield == BARE:
            self._first_end()
            return True
        if self.is_grace_owed:
            self._first_end()
        if clock.now() < self.clean_up_until:
            return False
        self._count_refusal(sys._getframe(1))
        if seconds := slowing.seconds(self.refusals):
            hub = get_hub()
            timer = hub.loop.timer(seconds)
            timer.start(self.greenlet.switch, update=True)
            try:
                plain_switch(hub)
            finally:
                timer.close()
        return True

    def _count_refusal(self, frame: FrameType | None) -> None:
        self.refusals += 1
        if self.refusals < slowing.QUICK_REFUSALS:  # retries have had the grace: what is behind them cleans up as well
            self.clean_up_until = min(clock.now() + self.clean_up_seconds / 2**self.refusals, self.clean_up_at_most)
        slowing.tell(self.refusals, self.environ, self.why(), frame)


CURRENT: ContextVar[Record | None] = ContextVar("greenroom.in_flight", default=None)
current: Callable[[], Record | None] = CURRENT.get


class Wait:
    """`with Wait("upstream", "api.example.com"):` around whatever waits, so that the request's time can be explained.

    `ends` says whether it may be ended: NEVER, UNLOCKED, OWN, EVERYWHERE. If so, BudgetSpent (a TimeoutError) is raised
    where it waits, as gevent.Timeout would be: in `Hub.switch`, and never in code that runs.
    """

    __slots__ = ("detail", "ends", "greenlet", "has_passed", "kind", "record", "since")

    def __init__(self, kind: Kind, detail: str = "", ends: int = NEVER) -> None:
        self.kind = kind
        self.detail = detail
        self.ends = ends
        self.has_passed = False
        self.record: Record | None = None

    def can_end(self) -> bool:
        """Runs on: hub."""
        if self.ends == UNLOCKED and self.record is not None:
            return sys.getrefcount(self.record.lock_mark) <= 2  # the record's and the call's own: no lock's
        return self.ends != NEVER

    def end(self, record: Record) -> None:
        """Runs on: hub, which keeps no error, and with it what its frames hold, longer than the greenlet does."""
        self.greenlet.throw(BudgetSpent, record.why())

    def __enter__(self) -> Self:
        record = self.record = CURRENT.get()
        if record is not None:
            self.greenlet: Any = getcurrent()
            self.since = clock.now()
            record.waits[self] = None
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> Any:
        if self.record is not None:
            self.record.waits.pop(self, None)
        if kind is BudgetSpent and exc is not None:
            exc.__traceback__ = None  # how gevent waits explains nothing, and is the most of the work of logging it


class TimedWait(Wait):
    """A wait whose caller may have given a timeout. At the first end it ends as if that had passed.

        with TimedWait("lock", "queue", timeout):
            return plain_get(timeout)
        raise queue.Empty           # comes here only from an end, and only where there is a timeout

    Without one (None), and when the grace is over, BudgetSpent is raised: a loop round a wait that returns False would
    turn for ever, and a caller without a timeout does not expect to be told that nothing came. Of several of these
    within each other the outermost is the one that the caller has called, and the one that counts.

    It concerns the request's own greenlet only; in threads and greenlets that it started it is but a name.
    """

    __slots__ = ("has_timeout",)

    def __init__(self, kind: Kind, detail: str, timeout: float | None, ends: int = OWN) -> None:
        Wait.__init__(self, kind, detail, ends)
        self.has_timeout = timeout is not None

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> bool:
        Wait.__exit__(self, kind, exc, traceback)
        return kind is BudgetSpent and self.has_passed and self.has_timeout
