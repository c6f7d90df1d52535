"""The border between waits and their observers: each room registers itself, none looks for another.

    shown   waits/pool, waits/http, waits/stdlib/threads  ─ register a function ─>  insight asks it
    told    insight sets a function  ─>  waits/query_wait, waits/sqlite, waits/stdlib/threads, waits/http call it

A room that is never imported has nothing to show, and one that is imported late is seen and told all the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any, Protocol


class Holder(Protocol):
    """The holder of a connection, or of one that is being opened, since a moment and a line."""

    record: Any
    since: float
    code: CodeType | None

    @property
    def line(self) -> int: ...


class DatabasePool(Protocol):
    """A pool of connections to a database. `limit` is 0 where there is none."""

    @property
    def name(self) -> str: ...
    @property
    def limit(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    def holders(self) -> Sequence[Holder]: ...
    def holder_of(self, connection: Any) -> Holder | None: ...


class UpstreamPool(Protocol):
    """The connections of this process to one upstream."""

    @property
    def name(self) -> str: ...
    @property
    def limit(self) -> int: ...
    @property
    def in_use(self) -> int: ...
    @property
    def waiting(self) -> int: ...


class Executors(Protocol):
    """The executors that requests use, and who works in their threads, by greenlet, for which request."""

    @property
    def executors(self) -> Iterable[Any]: ...
    @property
    def at_work(self) -> Mapping[Any, tuple[Callable[[], Any], Any]]: ...


# Shown.
database_pools: list[Callable[[], Iterable[DatabasePool]]] = []
upstream_pools: list[Callable[[], Iterable[UpstreamPool]]] = []
executors: list[Executors] = []
# Of children that were reaped here: pid -> status as os.waitpid() gives it, by rooms that reap.
ended_children: list[Mapping[int, int]] = []

# Told: a query of psycopg2's that a request waits for (its record, the connection, its Line with the text); a statement
# of sqlite3's (its record, the text); in a thread of an executor, that it begins or ends to work for a request.
on_query: Callable[[Any, Any, Any], None] | None = None
on_statement: Callable[[Any, str], None] | None = None
on_job_changed: Callable[[], None] | None = None
# Where requests are traced: a call of `requests` is sent by calling the second argument; the lines for its head.
on_call: Callable[[Any, Callable[[], Any]], Any] | None = None
trace_lines: Callable[[], str] | None = None


def show(where: list[Any], what: Any) -> None:
    """Register once; a room may be installed again."""
    if what not in where:
        where.append(what)
