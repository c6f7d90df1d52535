"""Statements that have been seen to take long: where they compute in this process, they run in a thread the next time.

How long a statement takes is known afterwards only, and one that has begun can't be moved. So the first time it holds
the loop; from then on it doesn't, until it has become quick again.
"""

from collections import OrderedDict

# Above what a hop to a thread and back costs, and below what others would feel.
SLOW_SECONDS = 0.01
MOST_STATEMENTS = 500
LONGEST_TEXT = 10_000


class SlowStatements:
    def __init__(self, slow_seconds: float = SLOW_SECONDS, most: int = MOST_STATEMENTS) -> None:
        self.slow_seconds = slow_seconds
        self.most = most
        self.known: OrderedDict[str, None] = OrderedDict()  # the one that was slow last is the last one

    def took(self, statement: str, seconds: float) -> None:
        """Runs on: any thread."""
        if seconds < self.slow_seconds:
            if seconds < self.slow_seconds / 2 and statement in self.known:
                self.known.pop(statement, None)
            return
        if len(statement) > LONGEST_TEXT:
            return
        self.known.pop(statement, None)
        self.known[statement] = None
        if len(self.known) > self.most:
            self.known.popitem(last=False)
