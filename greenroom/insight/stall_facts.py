"""The facts of a stall: the looks at it while it went on, the line that is blamed, and all stalls of a line."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from . import stacks
from .account import Account
from .machine import Use


@dataclass(slots=True)
class Stall:
    """One stall. `at` is Unix time, to be shown; `since` the same moment by the clock that measures; `seconds` how long
    the loop did not turn, `stolen_seconds` of it nobody's fault."""

    at: float
    since: float
    seconds: float
    stolen_seconds: float
    line: str
    called: str
    stack: list[str]
    request: str
    route: str
    holds_gil: bool
    cpu_seconds: float = 0.0  # that the thread computed meanwhile
    garbage_seconds: float = 0.0  # that the garbage collector took

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class StalledLine:
    """All stalls of one line."""

    line: str
    count: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0
    route: str = ""
    last_at: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Look:
    """One look, `at` this moment of a slice that began at `slice_began`; it stands for the `seconds` before."""

    slice_began: float
    stack: stacks.Stack
    holds_gil: bool = False
    seconds: float = 1.0
    at: float = 0.0


@dataclass(slots=True)
class Seen:
    """A long slice that has just ended, before anybody has thought about it."""

    at: float
    began: float
    seconds: float
    account: Account | None
    request: str
    route: str
    use: Use
    is_continued: bool
    stolen: float = 0.0
    place: stacks.Stack = field(default_factory=list)


def mostly_holds_gil(looks: list[Look]) -> bool:
    return sum(look.seconds for look in looks if look.holds_gil) * 2 > sum(look.seconds for look in looks)


def most_seen(looks: list[Look]) -> tuple[stacks.Call | None, stacks.Stack]:
    """The line that most of the time is blamed on, one of the application's own if there is any, and its first stack.

    A look that comes late finds the request where it writes its answer.
    """
    found = [(call, look) for look in looks if (call := stacks.guilty(look.stack)) is not None]
    found = [one for one in found if not stacks.is_installed(one[0].file)] or found
    if not found:
        return None, []
    seconds: Counter[Any] = Counter()
    for call, look in found:
        seconds[call[:2]] += look.seconds  # type: ignore[assignment]
    most = max(seconds, key=seconds.__getitem__)
    call, look = next(one for one in found if one[0][:2] == most)
    return call, look.stack
