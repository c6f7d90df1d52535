"""executemany()'s rows, where an iterator of the application's makes them: its code runs in its own greenlet.

In the thread of the call it would miss its thread's locals and name, and connections that are its thread's only.

    the call's thread:  next row ─ none here ─> ask ──────────> go on ─>
    the greenlet:            waits ────────────> take some ──────> wait
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

from .. import clock, deadline
from ..in_flight import OWN, Wait
from .stdlib.locks import Lock, word
from .threads import Job, get_thread_ident

# At once: on a busy loop each turn lasts milliseconds, in which the transaction goes on. No longer, because the others
# of the loop wait; and because rows that come slowly are wanted, too.
MOST_ROWS, MOST_SECONDS = 5_000, 0.005


class NobodyWaitsError(RuntimeError):
    """The greenlet that makes the rows has been ended: the call is, too."""


class Rows:
    """Iterates over `rows`; in a thread, once it is served, by asking the greenlet."""

    def __init__(self, connection: Any, rows: Iterator[Any]) -> None:
        self._connection = connection
        self._rows = rows
        self._taken: deque[Any] = deque()
        self._end: BaseException | None = None
        self.is_served = False
        self._asked, self._answered = _taken_word(), _taken_word()

    def __iter__(self) -> "Rows":
        return self

    def __next__(self) -> Any:
        """Runs on: the call's thread."""
        if self._taken:
            return self._taken.popleft()
        if not self.is_served:
            return next(self._rows)
        if self._end is None:
            self._asked.release()
            self._answered.wait_for(-1)  # it takes rows, or is ended, and says so
        if not self._taken and self._end is not None:
            raise self._end
        return self._taken.popleft()

    def serve(self, job: Job, name: str) -> None:
        """Take rows until the job is over. Runs on: the greenlet of the application; switches."""
        try:
            while not job.is_done:
                with deadline.unbounded(), Wait("lock", name, OWN):
                    self._asked.wait_for(-1, is_endable=False)
                if not job.is_done:
                    self._take()
                    self._answered.release()
        except BaseException:
            self._end = NobodyWaitsError("the greenlet of this call has been ended")
            if self._answered.locked():
                self._answered.release()
            raise

    def _take(self) -> None:
        """As many rows as are wanted. They may be made with the call's own connection, which does nothing meanwhile."""
        connection, until = self._connection, clock.now() + MOST_SECONDS
        its_thread, connection._away_in = connection._away_in, get_thread_ident()
        try:
            for row in self._rows:
                self._taken.append(row)
                if len(self._taken) >= MOST_ROWS or clock.now() >= until:
                    return
            self._end = StopIteration()
        except BaseException as exc:  # it is the call's, after the rows before it
            self._end = exc
        finally:
            connection._away_in = its_thread

    def came_back(self) -> None:
        """The call is over. Runs on: hub."""
        if self._asked.locked():
            self._asked.release()


def _taken_word() -> Lock:
    taken = word()
    taken.try_quickly()
    return taken


def of(connection: Any, rows: object) -> Any:
    """`rows` as executemany() is to have them."""
    if type(rows) is list or type(rows) is tuple:
        return rows
    try:
        return Rows(connection, iter(rows))  # type: ignore[call-overload]
    except TypeError:
        return rows  # C's to refuse
