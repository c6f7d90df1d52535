"""The line for a pool's connections: requests that have one, and requests that wait for one."""

from types import CodeType, FrameType
from typing import Any

from .. import clock
from ..deadline import remaining_seconds
from ..errors import BudgetSpent
from ..frames import Innermost, line_of
from ..in_flight import CURRENT, EVERYWHERE, FOREVER, Wait
from . import parking
from .naming import request_name
from .threads import is_loop_thread

# How often a request that waits in a real thread looks whether it goes on.
LOOK_AGAIN_SECONDS = 0.5
# Frames that are not the application's: of SQLAlchemy, of what is built on it, and ours.
LIBRARIES = ("sqlalchemy.", "flask_sqlalchemy.", "greenroom.", "contextlib")


def is_of_library(frame: FrameType) -> bool:
    return (frame.f_globals.get("__name__") or "").startswith(LIBRARIES)


application = Innermost(is_of_library)


class Holder:
    """A request that has a connection, or is opening one."""

    __slots__ = ("code", "instruction", "record", "since")

    def __init__(self) -> None:
        self.record = CURRENT.get()
        self.since = clock.now()
        frame = application.find()
        self.code: CodeType | None = None if frame is None else frame.f_code
        self.instruction = 0 if frame is None else frame.f_lasti

    @property
    def line(self) -> int:
        """Worked out when it is wanted: each checkout would pay for it."""
        return 0 if self.code is None else line_of(self.code, self.instruction)

    def describe(self, now: float) -> str:
        where = f"{self.code.co_filename}:{self.line} in {self.code.co_name}" if self.code else "an unknown line"
        return f"{request_name(self.record)} for {now - self.since:.1f} s, since {where}"


class Waiter:
    """One who waits in line. `given` is a connection, or ROOM to open one, as soon as it is theirs."""

    __slots__ = ("given", "parked")

    def __init__(self) -> None:
        self.parked = parking.waiter()
        self.given: Any = None

    def give(self, what: Any) -> None:
        self.given = what
        self.parked.wake()

    def wait(self, seconds: float | None, name: str) -> None:
        """Wait until something is given, or this long; None: for ever. Raises BudgetSpent."""
        until = FOREVER if seconds is None else clock.now() + seconds
        with Wait("pool", name, EVERYWHERE):
            while self.given is None and clock.now() < until:
                self.parked.park(until if is_loop_thread() else look_again_at(until), is_endable=True)


def look_again_at(until: float) -> float:
    """Return when to look again whether the request goes on: a wait in a real thread can't be ended from outside."""
    left = remaining_seconds()
    if left <= 0.0:
        record = CURRENT.get()
        raise BudgetSpent("" if record is None else record.why())
    return min(until, clock.now() + min(left, LOOK_AGAIN_SECONDS))
