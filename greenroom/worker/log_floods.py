"""Tracebacks that repeat: the first few of a kind are logged, the others are counted, in one line for each interval.

Only for lines that the worker writes itself; loggers of the application are its own. Errors are alike if they have the
same class and were raised at the same line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from .. import clock

MOST_ALIKE = 10
INTERVAL_SECONDS = 10.0
# The kinds of errors counted at a time are bounded; beyond this many, each line is logged.
MOST_KINDS = 200

Kind = tuple[type[BaseException], str, int]


@dataclass
class Seen:
    """Errors of one kind in one interval."""

    since: float
    count: int = 0


class Floods:
    """Which errors are one too many. Runs on: any greenlet; never switches, but for the log's handlers in `tell`."""

    def __init__(self, log: Any, now: Callable[[], float] = clock.now) -> None:
        self.log = log
        self.now = now
        self._seen: dict[Kind, Seen] = {}

    def is_one_more(self, exc: BaseException | None) -> bool:
        """Whether enough of its kind were logged in this interval; if so, it is counted."""
        if exc is None:
            return False
        kind = type(exc), *_raised_at(exc.__traceback__)
        seen = self._seen.get(kind)
        if seen is None:
            if len(self._seen) >= MOST_KINDS:
                return False
            seen = self._seen[kind] = Seen(self.now())
        seen.count += 1
        return seen.count > MOST_ALIKE

    def tell(self, *, is_end: bool = False) -> None:
        """Log how many were left out, of each kind whose interval is over; at the worker's end of all.

        Runs on: main greenlet, about once a second.
        """
        now = self.now()
        for kind, seen in list(self._seen.items()):
            if is_end or now - seen.since >= INTERVAL_SECONDS:
                del self._seen[kind]
                if seen.count > MOST_ALIKE:
                    error, file, line = kind
                    self.log.error(
                        "Error handling request: the same %d times more in %.0f s, %s at %s:%d",
                        seen.count - MOST_ALIKE,
                        now - seen.since,
                        error.__name__,
                        file,
                        line,
                    )


def _raised_at(traceback: TracebackType | None) -> tuple[str, int]:
    """File and line of the innermost call."""
    if traceback is None:
        return "", 0
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
