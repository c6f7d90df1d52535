"""Greenlets of no request that compute much: a thread that the application has started, say, and its line.

Slices of theirs are added up by greenlet (see account). Once a second the sums become shares of the time, smoothed over
some seconds, and the greenlets that are switched out are looked at for their lines.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from .. import clock, redaction
from .callers import line_and_library
from .greenlets import spawner_of

SHOWN = 3
SMALLEST_SHARE = 0.05
# The weight of the last second: a share is that of the last ten or so.
LAST_SECOND = 0.15


class Beside:
    """Those of one worker. Runs on: the loop's thread; anybody may read `rows`."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self.now = now
        self.rows: list[dict[str, Any]] = []
        self._shares: dict[int, float] = {}
        self._looked_at = now()

    def tick(self, spent: dict[int, float], known: Mapping[int, weakref.ref[Any]]) -> None:
        """`spent` are the seconds since the last time by the greenlet's id, and are taken out of there."""
        now = self.now()
        passed = max(now - self._looked_at, 0.001)
        self._looked_at = now
        if not spent and not self._shares:
            return
        grown = dict(spent)
        spent.clear()
        shares = {}
        for number in {*grown, *self._shares}:
            last = min(1.0, grown.get(number, 0.0) / passed)
            share = (1.0 - LAST_SECOND) * self._shares.get(number, 0.0) + LAST_SECOND * last
            if share > SMALLEST_SHARE / 2:
                shares[number] = share
        self._shares = shares
        most = sorted(shares, key=shares.__getitem__, reverse=True)[:SHOWN]
        rows = [_row(known[number](), shares[number]) for number in most if number in known]
        self.rows = [row for row in rows if row and row["share"] >= SMALLEST_SHARE]


def _row(greenlet: Any, share: float) -> dict[str, Any]:
    if greenlet is None or greenlet.dead:
        return {}
    line, _ = line_and_library(getattr(greenlet, "gr_frame", None))
    return {"line": line, "started_at": redaction.line(spawner_of(greenlet)), "share": share}
