"""Queries per request, and the line that repeats one: the loop that asks the database for each row.

Counted for each request by the line that asked, for connections of psycopg2 and sqlite3. Of a request that asked often
the line with the most queries is kept, with one of its statements, without values.
"""

import sys
from dataclasses import asdict, dataclass
from types import CodeType, FrameType
from typing import Any

from .. import redaction
from ..frames import Innermost, line_of
from ..in_flight import Record
from . import stacks
from .account import Account

MOST_LINES = 100
# A request that asks so often at one line is worth a word.
REPEATS = 20
# From `find`: `sqlite` and then the cursor's `execute`, which may be the outermost frame of a greenlet.
FROM_SQLITE = 2
# From `sqlite`: what has called `execute`.
ASKER = 2
_frame = sys._getframe


@dataclass(slots=True)
class Repeated:
    """A line that asks the database again and again.

    `requests`: in how many; `count`: how often in all; `most`: how often in one of them.
    """

    line: str
    route: str
    statement: str = ""
    requests: int = 0
    count: int = 0
    most: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Queries:
    """Those of one worker. Runs on: request greenlet; anybody may read."""

    def __init__(self, application: Innermost) -> None:
        self.application = application
        self.repeated: dict[tuple[str, str], Repeated] = {}
        # By route: requests that asked a database, and how often.
        self.by_route: dict[str, list[int]] = {}

    def asked(self, account: Account, code: CodeType | None, instruction: int, statement: str) -> None:
        """A query begins. The caller has found the application's line."""
        key = (id(code), instruction)  # whose own hash is that of all it consists of
        queries: Any = account.queries
        if queries is None:
            queries = account.queries = {}
        seen = queries.get(key)
        if seen is None:
            queries[key] = [1, statement, code]
        else:
            seen[0] += 1
            seen[1] = statement

    def sqlite(self, record: Record, statement: str) -> None:
        if type(record) is not Account or record.ended:
            return
        try:
            frame: FrameType | None = _frame(ASKER)
        except ValueError:  # `execute` is all that a greenlet runs
            frame = None
        # Mostly it is the application itself that asks; its frame is the only one that is looked at.
        if frame is None or id(frame.f_code) not in self.application.own:
            frame = self.application.find(FROM_SQLITE)
        if frame is None:
            self.asked(record, None, 0, statement)
        else:
            self.asked(record, frame.f_code, frame.f_lasti, statement)

    def finish(self, account: Account) -> None:
        queries: Any = account.queries
        if queries is None:
            return
        account.queries = None
        route = account.pattern()
        sums = self.by_route.setdefault(route, [0, 0]) if len(self.by_route) < MOST_LINES else self.by_route.get(route)
        if sums is not None:
            sums[0] += 1
            sums[1] += sum(seen[0] for seen in queries.values())
        (_, instruction), (count, statement, code) = max(queries.items(), key=lambda item: item[1][0])
        if count >= REPEATS:
            self._repeats(account, route, code, instruction, count, statement)

    def _repeats(
        self, account: Account, route: str, code: CodeType | None, instruction: int, count: int, statement: str
    ) -> None:
        line = "" if code is None else f"{stacks.shortened(code.co_filename)}:{line_of(code, instruction)}"
        row = self.repeated.get((line, route))
        if row is None:
            if len(self.repeated) >= MOST_LINES:
                return
            row = self.repeated[line, route] = Repeated(line, route)
        row.statement = redaction.detail("query", str(statement))
        row.requests += 1
        row.count += count
        row.most = max(row.most, count)
        row.seconds += account.total_seconds(account.ended)

    def as_list(self) -> list[dict[str, Any]]:
        rows = sorted(list(self.repeated.values()), key=lambda row: -row.count)
        return [row.as_dict() for row in rows]

    def counted(self) -> dict[str, dict[str, int]]:
        return {route: {"requests": sums[0], "queries": sums[1]} for route, sums in list(self.by_route.items())}
