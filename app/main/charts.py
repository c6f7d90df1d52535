"""The small chart beside each source: one bar for each of its last fetches. `static/board.js` draws the same live."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from sqlalchemy import select

from ..extensions import db
from ..models import Fetch

BARS = 30
BAR_WIDTH = 4  # of which one is the gap
HEIGHT = 28


@dataclass(frozen=True)
class Point:
    """One fetch: how long it took, and whether the source answered without an error."""

    elapsed_ms: int
    is_ok: bool

    def __str__(self) -> str:
        """As board.js reads it: `120`, or `-120` for a fetch that failed."""
        return str(self.elapsed_ms if self.is_ok else -max(1, self.elapsed_ms))


@dataclass(frozen=True)
class Bar:
    x: int
    y: float
    height: float
    is_ok: bool


@dataclass(frozen=True)
class Chart:
    """Points from the oldest to the newest, at most BARS of them; the newest stands at the right edge."""

    points: Sequence[Point]

    width = BARS * BAR_WIDTH
    height = HEIGHT
    bar_width = BAR_WIDTH - 1

    def bars(self) -> Iterable[Bar]:
        longest = max((point.elapsed_ms for point in self.points), default=1) or 1
        first = BARS - len(self.points)
        for index, point in enumerate(self.points, start=first):
            height = max(2.0, round(HEIGHT * point.elapsed_ms / longest, 1))
            yield Bar(index * BAR_WIDTH, HEIGHT - height, height, point.is_ok)

    def data(self) -> str:
        return " ".join(str(point) for point in self.points)

    def summary(self) -> str:
        """The chart in words."""
        if not self.points:
            return "No fetches yet"
        failed = sum(not point.is_ok for point in self.points)
        typical = round(median(point.elapsed_ms for point in self.points))
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
    points: dict[str, list[Point]] = {name: [] for name in names}
    for row in db.session.execute(newest):
        if row.source_name in points and len(points[row.source_name]) < BARS:
            is_ok = row.error is None and row.status is not None and row.status < 400
            points[row.source_name].append(Point(row.elapsed_ms, is_ok))
    return {name: Chart(found[::-1]) for name, found in points.items()}
