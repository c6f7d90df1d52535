"""The small chart beside each source: one bar for each of its last fetches. `static/board.js` draws the same live."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from sqlalchemy import select

from ..extensions import db
from ..models import Fetch

BARS = 30
BAR_WIDTH = 4  # of which one is the gap
HEIGHT = 28


class Bar(NamedTuple):
    x: int
    y: float
    height: float
    is_ok: bool


@dataclass(frozen=True)
class Chart:
    """Milliseconds of the last fetches, from the oldest to the newest and at most BARS; of failed ones below zero."""

    points: Sequence[int]

    width = BARS * BAR_WIDTH
    height = HEIGHT
    bar_width = BAR_WIDTH - 1

    def bars(self) -> Iterable[Bar]:
        """The newest stands at the right edge."""
        longest = max([1, *map(abs, self.points)])
        for index, point in enumerate(self.points, start=BARS - len(self.points)):
            height = max(2.0, round(HEIGHT * abs(point) / longest, 1))
            yield Bar(index * BAR_WIDTH, HEIGHT - height, height, point >= 0)

    def summary(self) -> str:
        """The chart in words."""
        if not self.points:
            return "No fetches yet"
        failed = sum(point < 0 for point in self.points)
        typical = round(median(map(abs, self.points)))
        count = len(self.points)
        fetches = "fetch" if count == 1 else f"{count} fetches"
        return f"Last {fetches}: typically {typical} ms, {failed} failed"


def charts(board_id: int, names: Sequence[str]) -> dict[str, Chart]:
    """The chart of each named source.

    Reads the newest rows of the board by its index and sorts them out here: one bounded read, however long the
    history is. A source that was added lately shows what it has.
    """
    newest = (
        select(Fetch.source_name, Fetch.elapsed_ms, Fetch.status, Fetch.error)
        .where(Fetch.board_id == board_id)
        .order_by(Fetch.started_at.desc(), Fetch.id.desc())
        .limit(BARS * max(1, len(names)))
    )
    points: dict[str, list[int]] = {name: [] for name in names}
    for row in db.session.execute(newest):
        if row.source_name in points and len(points[row.source_name]) < BARS:
            is_ok = row.error is None and row.status is not None and row.status < 400
            points[row.source_name].append(row.elapsed_ms if is_ok else -max(1, row.elapsed_ms))
    return {name: Chart(found[::-1]) for name, found in points.items()}
