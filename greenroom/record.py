"""What a worker knows of one request while it runs: when it came, until when it may take, what it waits for.

The record is in a context variable, so threads and greenlets that a request starts find the one they work for. Outside
requests there is none.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal, Self

from greenlet import getcurrent

from . import clock

FOREVER = float("inf")
# What a request can wait for. "other": everything that nobody named.
Kind = Literal["upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other"]


class Record:
    """One request. Times are `clock.now()` seconds.

    `deadline` is the moment after which nobody wants the answer; `is_cut` says that it has been brought forward because
    the client has left or the worker stops. `shields` counts the clean-ups under way, during which no wait is bounded.
    `waits` are the waits that go on right now, one for each greenlet that works for this request and waits.
    """

    __slots__ = ("arrived", "deadline", "environ", "id", "is_cut", "shields", "waits", "__weakref__")

    def __init__(self, *, arrived: float, deadline: float = FOREVER, id: str = "", environ: Any = None) -> None:
        self.arrived = arrived
        self.deadline = deadline
        self.id = id
        self.environ = environ
        self.is_cut = False
        self.shields = 0
        self.waits: set[Wait] = set()


CURRENT: ContextVar[Record | None] = ContextVar("greenroom.record", default=None)
current: Callable[[], Record | None] = CURRENT.get


class Wait:
    """`with Wait("upstream", "api.example.com"):` around whatever waits, so that the request's time can be explained.

    `interrupt`, if given, ends the wait early with the timeout error that it would have raised at its deadline; it is
    called in the hub when the request is cut, at most once, and only while the wait goes on.
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
            self.greenlet = getcurrent()
            self.since = clock.now()
            record.waits.add(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.record is not None:
            self.record.waits.discard(self)
