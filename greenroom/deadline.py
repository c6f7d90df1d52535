"""How long whoever asks may still wait, and how to ask for more time, or less.

How waits end when a request's budget is spent is in in_flight.py. Waits need not ask how long they may last: they say
that they may be ended. Those of our own ask before they begin, so as not to send what nobody waits for:
`raise_if_refused`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from . import clock
from .errors import BudgetSpent
from .in_flight import CLEAN_UP, CURRENT, FOREVER, SHIELD, UNBOUNDED, Record
from .waits.stdlib import install_hub


def remaining_seconds() -> float:
    """How long an upstream's answer or a query of the caller may still take; never below 0.

    Infinite outside requests, where there is no budget, and for what a request has left behind.
    """
    record = CURRENT.get()
    if record is None or record.deadline == FOREVER:
        return FOREVER
    return record.left_seconds(SHIELD.get())


def limit(timeout_seconds: float | None) -> float | None:
    """How long a wait may last that would itself last `timeout_seconds` at most (None: for ever)."""
    left = remaining_seconds()
    if left == FOREVER:
        return timeout_seconds
    return left if timeout_seconds is None or left < timeout_seconds else timeout_seconds


def is_spent() -> bool:
    """Whether the caller works for a request whose answer nobody wants any more."""
    record = CURRENT.get()
    return record is not None and not record.is_over and record.is_spent()


def is_refused() -> bool:
    """Whether the caller must not begin another wait: its time is over.

    That counts as an end: ask only right before the wait. Runs on: any greenlet; switches where it is.
    """
    record = CURRENT.get()
    return record is not None and record.deadline != FOREVER and record.refuses(SHIELD.get())


def raise_if_refused() -> None:
    """Raises BudgetSpent."""
    if is_refused():
        record = CURRENT.get()
        raise BudgetSpent(record.why() if record is not None else "")


@contextmanager
def shield() -> Iterator[None]:
    """Inside, waits are not ended with the budget, but a few seconds later, with the grace.

    For what should not be interrupted half-way, and would have to be repeated: a commit, a pair of writes.
    """
    token = SHIELD.set(max(CLEAN_UP, SHIELD.get()))
    try:
        yield
    finally:
        SHIELD.reset(token)


@contextmanager
def unbounded() -> Iterator[None]:
    """Inside, no wait is ended at all: only for what would leave things broken, and ends by itself."""
    token = SHIELD.set(UNBOUNDED)
    try:
        yield
    finally:
        SHIELD.reset(token)


@contextmanager
def budget(seconds: float) -> Iterator[Record]:
    """For work outside of requests, a job say: inside, all waits together last `seconds` at most, as in a request."""
    install_hub()  # in a process that serves no requests nobody else does
    now = clock.now()
    outer = CURRENT.get()
    if outer is not None:
        outer.keep_time()  # waits are the inner one's now
    record = Record(now, now + seconds if outer is None else min(now + seconds, outer.deadline))
    token = CURRENT.set(record)
    record.keep_time()
    try:
        yield record
    finally:
        CURRENT.reset(token)
        record.finish()
