"""The moment after which nobody wants the answer, and what it means for each wait.

Every wait of a request asks how long it may last: `seconds = deadline.limit(own_timeout)`. When the budget is spent
that is 0 and the wait raises, at once, the timeout error that its caller handles anyway. Nothing is ever thrown into
code that does not wait. Clean-up goes on undisturbed inside `shield()`, for as long as CLEAN_UP_SECONDS.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from . import clock
from .record import BARE, CLEAN_UP, CURRENT, FOREVER, UNBOUNDED, Record

# Of the running greenlet. What a clean-up starts cleans up as well.
SHIELD: ContextVar[int] = ContextVar("greenroom.shield", default=BARE)
# Told of each wait that will not be, because the budget is spent (see waits/primitives/loops.py).
on_refusal: Callable[[Record], None] | None = None


def remaining_seconds() -> float:
    """How long a wait may last now, never below 0: infinite outside requests, and where there is no budget.

    Runs on: any greenlet; for whoever goes on asking when it is 0, it switches.
    """
    record = CURRENT.get()
    if record is None or record.deadline == FOREVER:
        return FOREVER
    left = record.ends_at(SHIELD.get()) - clock.now()
    if left > 0.0:
        return left
    if on_refusal is not None:
        on_refusal(record)
    return 0.0


def limit(timeout_seconds: float | None) -> float | None:
    """How long a wait may last that would itself last `timeout_seconds` at most (None: for ever)."""
    left = remaining_seconds()
    if left == FOREVER:
        return timeout_seconds
    return left if timeout_seconds is None or left < timeout_seconds else timeout_seconds


def is_spent() -> bool:
    """Whether waits are over for whoever asks."""
    return remaining_seconds() == 0.0


@contextmanager
def shield() -> Iterator[None]:
    """Inside, waits may go on past the deadline, for a few seconds: commit, rollback, return to a pool."""
    token = SHIELD.set(max(CLEAN_UP, SHIELD.get()))
    try:
        yield
    finally:
        SHIELD.reset(token)


@contextmanager
def unbounded() -> Iterator[None]:
    """Inside, waits are not bounded at all: only for what would leave things broken, and ends by itself."""
    token = SHIELD.set(UNBOUNDED)
    try:
        yield
    finally:
        SHIELD.reset(token)


@contextmanager
def budget(seconds: float) -> Iterator[Record]:
    """For work outside of requests, a job say: inside, all waits together last `seconds` at most."""
    now = clock.now()
    record = Record(now, now + seconds)
    token = CURRENT.set(record)
    try:
        yield record
    finally:
        CURRENT.reset(token)
        record.finish()
