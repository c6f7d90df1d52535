"""sqlite3's statements: the kind of each, which has to be known before it is made, and how long each computes."""

import functools
import re
import time
from collections.abc import Callable
from typing import Any

from .slow_statements import MOST_STATEMENTS, SlowStatements
from .threads import get_thread_ident

READING = re.compile(r"\s*(select|with|values)\b", re.IGNORECASE)
RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)
NOTHING, READS, RETURNS, ABOUT_TIMEOUT = 0, 1, 2, 4  # see kind_of
GOOD_SECONDS = 0.002

slow, slow_rows = SlowStatements(), SlowStatements()  # those that take long, and those whose rows do, at once


@functools.lru_cache(MOST_STATEMENTS)
def kind_of(sql: str) -> int:
    """Return the kind of a statement, which has to be known before it is made."""
    is_about_timeout = sql[:100].lstrip()[:6].lower() == "pragma" and "busy_timeout" in sql.lower()
    is_read, may_return = READING.match(sql), RETURNING.search(sql)
    return (READS if is_read else 0) | (RETURNS if may_return else 0) | (ABOUT_TIMEOUT if is_about_timeout else 0)


class Said:
    """What a thread's CPU time was at a moment."""

    __slots__ = ("at", "cpu", "thread")

    def __init__(self, at: float) -> None:
        self.at = at
        self.thread = get_thread_ident()
        self.cpu = time.thread_time()


class Took:
    """How long statements compute, which is asked of the system for those only that take long on the clock: it takes a
    while to say how much CPU a thread has had, so what it said is good for `GOOD_SECONDS`.

    What a busy machine or the interpreter's lock adds is not the statement's doing.
    """

    def __init__(self) -> None:
        self.said = Said(-GOOD_SECONDS)

    def ask(self, now: float) -> Said:
        self.said = said = Said(now)
        return said

    def long(self, known: SlowStatements, statement: str, began: float, said: Said) -> None:
        """A statement has taken long on the clock: `said` is from when it began, or shortly before."""
        known.took(statement, max(0.0, time.thread_time() - said.cpu - (began - said.at)))


took = Took()


def timed(known: SlowStatements, statement: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call `function`, in a thread, and note how long it computed."""
    began = time.thread_time()
    try:
        return function(*args)
    finally:
        known.took(statement, time.thread_time() - began)
