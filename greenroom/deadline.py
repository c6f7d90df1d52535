"""The moment after which nobody wants the answer, and what it means for each wait.

Every wait of a request asks how long it may last: `seconds = deadline.limit(own_timeout)`. When the budget is spent
that is 0 and the wait raises, at once, the timeout error that its caller handles anyway. Nothing is ever thrown into
code that does not wait. Clean-up goes on undisturbed inside `shield()`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from . import clock
from .record import CURRENT, FOREVER


def remaining_seconds() -> float:
    """What is left of the current request's budget, never below 0; infinite outside requests and inside shields."""
    record = CURRENT.get()
    if record is None or record.shields or record.deadline == FOREVER:
        return FOREVER
    left = record.deadline - clock.now()
    return left if left > 0.0 else 0.0


def limit(timeout_seconds: float | None) -> float | None:
    """How long a wait may last that would itself last `timeout_seconds` at most (None: for ever)."""
    left = remaining_seconds()
    if left == FOREVER:
        return timeout_seconds
    return left if timeout_seconds is None or left < timeout_seconds else timeout_seconds


def is_spent() -> bool:
    """Whether the current request's budget is used up."""
    return remaining_seconds() == 0.0


@contextmanager
def shield() -> Iterator[None]:
    """Inside, waits of the current request are not bounded by its budget: commit, rollback, return to a pool."""
    record = CURRENT.get()
    if record is None:
        yield
        return
    record.shields += 1
    try:
        yield
    finally:
        record.shields -= 1
