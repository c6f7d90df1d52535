"""What a worker knows of one request while it runs: when it came, until when it may take, what it waits for.

The record is in a context variable, so threads and greenlets that a request starts find the one they work for. Outside
requests there is none.

    arrived ──budget──> deadline ──CLEAN_UP_SECONDS──> end of clean-up
    waits are bounded          │ waits raise at once,      │ nothing waits any more
                               │ but for those of a shield │

`cut` brings the deadline forward to this moment: the client has left, or the worker stops.
"""

from collections.abc import Callable
from contextvars import ContextVar
from operator import attrgetter
from typing import Any, Literal, Self

from gevent import get_hub
from greenlet import getcurrent

from . import clock
from .errors import BudgetSpent

FOREVER = float("inf")
# How long commits, rollbacks, returns to pools and teardowns may go on when nobody wants the answer any more.
CLEAN_UP_SECONDS = 5.0
# How long a wait that was interrupted may take to end before an error is raised in it.
BACKSTOP_SECONDS = 0.5
# What a request can wait for. "other": everything that nobody named.
Kind = Literal["upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other"]
# What bounds a wait: the deadline; the end of clean-up; nothing but the wait itself.
BARE, CLEAN_UP, UNBOUNDED = 0, 1, 2
# Why a request was cut.
CLIENT_LEFT = "the client has left"
WORKER_STOPS = "the worker stops"


class Record:
    """One request. Times are `clock.now()` seconds.

    `deadline` is the moment after which nobody wants the answer; `is_cut` says that it has been brought forward, and
    `cut_reason` why. `waits` are the waits that go on right now, innermost and outer ones of each greenlet that works
    for this request; `waiting` are the greenlets that are switched out, each with the shield it has.

    It is also what applications find in environ["greenroom.deadline"].
    """

    __slots__ = (
        "answer",
        "arrived",
        "asked",
        "became",
        "clean_up_until",
        "cut_reason",
        "deadline",
        "environ",
        "id",
        "is_cut",
        "is_ended",
        "is_over",
        "loops",
        "on_end",
        "timer",
        "waiting",
        "waits",
        "__weakref__",
    )

    def __init__(self, arrived: float, deadline: float = FOREVER, id: str = "", environ: Any = None) -> None:
        self.arrived = arrived
        self.asked: tuple[str, ...] = ()  # method and target, for those who name it when it is over
        self.deadline = deadline
        self.id = id
        self.environ = environ
        self.answer: Any = None  # the response, from when it is known
        self.became = ""  # "websocket", "taken over": no budget, and nobody cuts it
        self.is_cut = False
        self.is_ended = False  # spent or cut, and `on_end` has been told
        self.is_over = False
        # Called in the hub, once, when the budget is spent or the request is cut: the client is answered then.
        self.on_end: Callable[[Record], None] | None = None
        self.cut_reason = ""
        self.clean_up_until = 0.0
        self.loops: dict[Any, Any] | None = None  # greenlets whose waits are refused; see waits/primitives/loops.py
        self.timer: Any = None
        self.waits: dict[Wait, None] = {}  # half as dear to make as a set, and a third as large
        self.waiting: dict[Any, int] = {}

    def remaining_seconds(self, now: Callable[[], float] = clock.now) -> float:
        """What is left of the budget, never below 0; infinite when there is none."""
        left = self.deadline - now()
        return left if left > 0.0 else 0.0

    def set(self, seconds: float | None) -> None:
        """Give the request `seconds` from now on; None: as long as it takes. Once spent, a budget stays spent."""
        if not self.is_spent():
            self.deadline = FOREVER if seconds is None else clock.now() + seconds
            self.keep_time()

    def extend(self, seconds: float) -> None:
        """Give the request `seconds` more than it has. Once spent, a budget stays spent."""
        if not self.is_spent():
            self.deadline += seconds
            self.keep_time()

    def lift(self) -> None:
        """No budget from now on. Only for one that is not spent."""
        self.deadline = FOREVER
        if self.timer is not None:
            self.keep_time()

    def is_spent(self) -> bool:
        return self.is_cut or self.deadline <= clock.now()

    def cut(self, reason: str, clean_up_seconds: float = CLEAN_UP_SECONDS) -> None:
        """End the request: its waits are over now, and what it waits for later raises at once.

        Runs on: any greenlet of the worker's hub. The waits end in the next turn of the loop.
        """
        if self.is_cut or self.is_over:
            return
        now = clock.now()
        self.is_cut = True
        self.cut_reason = reason
        self.deadline = min(self.deadline, now)
        self.clean_up_until = now + clean_up_seconds
        get_hub().loop.run_callback(self.expire)

    def finish(self) -> None:
        """The request is answered. What it leaves behind may go on, if the budget was enough; else it stays cut."""
        self.is_over = True
        self.loops = None
        if self.deadline != FOREVER and not self.is_spent():
            self.deadline = FOREVER
        if self.timer is not None:
            self.keep_time()

    def why(self) -> str:
        """What happened to the budget, for whoever gets the timeout error."""
        return self.cut_reason or f"the request's budget of {self.deadline - self.arrived:.3g} s is spent"

    def ends_at(self, shield: int) -> float:
        """Until when a wait under this shield may last, as far as that is known."""
        if shield == BARE:
            return self.deadline
        if shield == UNBOUNDED or not self.is_spent():
            return FOREVER  # while the budget lasts nobody knows when clean-up will have to end: `expire` finds out
        if not self.clean_up_until:
            self.clean_up_until = clock.now() + CLEAN_UP_SECONDS
        return self.clean_up_until

    def keep_time(self) -> None:
        """See to it that the waits that go on now are ended when their time is over."""
        self.stop_timer()
        if not self.waiting:
            return
        now = clock.now()
        ends = {self.ends_at(shield) for shield in self.waiting.values()}
        if now < self.deadline:
            ends.add(self.deadline)
        # What was interrupted already and still waits did not do as it was told: it gets a moment more.
        until = min((end if end > now else now + BACKSTOP_SECONDS for end in ends), default=FOREVER)
        if until != FOREVER:
            self.timer = get_hub().loop.timer(until - now)
            self.timer.start(self.expire, update=True)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
            self.timer = None

    def expire(self) -> None:
        """End the waits whose time is over. Runs on: hub."""
        now = clock.now()
        if not self.is_ended and self.is_spent():
            self.is_ended = True
            if self.on_end is not None:
                self.on_end(self)
        for greenlet, shield in list(self.waiting.items()):
            if greenlet in self.waiting and self.ends_at(shield) <= now:
                self._interrupt(greenlet)
        self.keep_time()

    def _interrupt(self, greenlet: Any) -> None:
        """End what this greenlet waits for: as its innermost Wait knows how to, else by raising where it waits."""
        waits = [wait for wait in self.waits if wait.greenlet is greenlet]
        innermost = max(waits, key=attrgetter("since"), default=None)
        if innermost is not None and innermost.interrupt is not None:
            interrupt, innermost.interrupt = innermost.interrupt, None
            interrupt()
        else:
            greenlet.throw(BudgetSpent(self.why()))


CURRENT: ContextVar[Record | None] = ContextVar("greenroom.record", default=None)
current: Callable[[], Record | None] = CURRENT.get


class Wait:
    """`with Wait("upstream", "api.example.com"):` around whatever waits, so that the request's time can be explained.

    `interrupt`, if given, ends the wait early with the timeout error that it would have raised at its deadline; it is
    called in the hub when the budget is spent or the request is cut, at most once, and only while the wait goes on.
    """

    __slots__ = ("detail", "greenlet", "interrupt", "kind", "record", "since")

    def __init__(self, kind: Kind, detail: str = "", interrupt: Callable[[], None] | None = None) -> None:
        self.kind = kind
        self.detail = detail
        self.interrupt = interrupt
        self.record: Record | None = None

    def __enter__(self) -> Self:
        record = self.record = CURRENT.get()
        if record is not None:
            self.greenlet: Any = getcurrent()
            self.since = clock.now()
            record.waits[self] = None
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if self.record is not None:
            self.record.waits.pop(self, None)
        if kind is BudgetSpent and exc is not None:
            exc.__traceback__ = None  # how gevent waits explains nothing, and is the most of the work of logging it
