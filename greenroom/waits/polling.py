"""The system's poll(), which gevent replaces: for threads that may block, and for looks that don't wait."""

import select
from collections.abc import Callable
from typing import Any

from gevent import monkey

real_poll: Callable[[], Any] | None = monkey.get_original("select", "poll") if hasattr(select, "poll") else None
READ, WRITE = 1, 2  # of the event loop's watchers, and of selectors
EVENTS = (0, select.POLLIN, select.POLLOUT, select.POLLIN | select.POLLOUT) if real_poll is not None else (0,) * 4


def events_of(flags: int) -> int:
    """Return poll()'s events for READ, WRITE or both."""
    return EVENTS[flags & (READ | WRITE)]


def poller_of(events: dict[int, int]) -> Any:
    """Return the system's poll object for descriptors and their events."""
    assert real_poll is not None
    poller = real_poll()
    for descriptor, event in events.items():
        poller.register(descriptor, event)
    return poller


def polled(events: dict[int, int], seconds: float | None) -> list[tuple[int, int]]:
    """Return descriptors and their events, after so long at most (None: for ever). Blocks the thread."""
    found: list[tuple[int, int]] = poller_of(events).poll(None if seconds is None else max(0.0, seconds) * 1000)
    return found
