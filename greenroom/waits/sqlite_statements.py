"""sqlite3's statements: the kind of each, which has to be known before it is made, and how long each computes."""

import functools
import re
import time
from collections.abc import Callable
from typing import Any

from .. import clock
from .slow_statements import MOST_STATEMENTS, SLOW_SECONDS, SlowStatements
from .threads import get_thread_ident

READING = re.compile(r"\s*(select|with|values)\b", re.IGNORECASE)
RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)
NOTHING, READS, RETURNS, ABOUT_TIMEOUT = 0, 1, 2, 4  # see kind_of
GOOD_SECONDS = 0.002

slow = SlowStatements()


@functools.lru_cache(MOST_STATEMENTS)
def kind_of(sql: str) -> int:
    """Return the kind of a statement, which has to be known before it is made."""
    is_about_timeout = sql[:100].lstrip()[:6].lower() == "pragma" and "busy_timeout" in sql.lower()
    is_read, may_return = READING.match(sql), RETURNING.search(sql)
    return (READS if is_read else 0) | (RETURNS if may_return else 0) | (ABOUT_TIMEOUT if is_about_timeout else 0)


class Took:
    """How long statements compute, which is asked of the system for those only that take long on the clock: it takes a
    while to say how much CPU a thread has had, so what it said is good for `GOOD_SECONDS`.

    What a busy machine or the interpreter's lock adds is not the statement's doing.
    """

    def __init__(self) -> None:
        self._said = (0, 0.0, 0.0)  # thread, the clock, its CPU

    def call(self, call: Callable[[], Any], statement: str) -> Any:
        began = clock.now()
        thread, at, cpu = self._said
        if began - at > GOOD_SECONDS or thread != get_thread_ident():
            at, cpu = began, time.thread_time()
            self._said = (get_thread_ident(), at, cpu)
        try:
            return call()
        finally:
            seconds = clock.now() - began
            if seconds >= SLOW_SECONDS:
                slow.took(statement, max(0.0, time.thread_time() - cpu - (began - at)))
            elif statement in slow.known:
                slow.took(statement, seconds)


took = Took()


def timed(call: Callable[[], Any], statement: str) -> Any:
    began = time.thread_time()
    try:
        return call()
    finally:
        slow.took(statement, time.thread_time() - began)
