"""The border between waits and their observers: each room registers itself, none looks for another.

    shown   waits/pool, waits/http, waits/stdlib/threads  ─ register a function ─>  insight asks it
    told    insight sets a function  ─>  waits/query_wait, waits/sqlite, waits/stdlib/threads, waits/http call it

A room that is never imported has nothing to show, and one that is imported late is seen and told all the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import CodeType
from typing import Protocol, TypeVar

from greenlet import greenlet

from .in_flight import Record

T = TypeVar("T")


class Holder(Protocol):
    """The holder of a connection, or of one that is being opened, since a moment and a line."""

    record: Record | None
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
    def holder_of(self, connection: object) -> Holder | None: ...


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
    def executors(self) -> Iterable[ThreadPoolExecutor]: ...
    @property
    def at_work(self) -> Mapping[greenlet, tuple[Callable[[], ThreadPoolExecutor | None], Record]]: ...


class Query(Protocol):
    """The side of a connection of psycopg2's that waits: what it is asked, and the observer's note of its user."""

    sql: str
    note: object


class Traced(Protocol):
    """Sends a call of `requests` by calling `send`, and returns what that returns."""

    def __call__(self, request: object, send: Callable[[], T], /) -> T: ...


# Shown.
database_pools: list[Callable[[], Iterable[DatabasePool]]] = []
upstream_pools: list[Callable[[], Iterable[UpstreamPool]]] = []
executors: list[Executors] = []
# Of children that were reaped here: pid -> status as os.waitpid() gives it, by rooms that reap.
ended_children: list[Mapping[int, int]] = []

# Told: a query of psycopg2's that a request waits for (its record, the connection, what it is asked); a statement of
# sqlite3's (its record, the text); in a thread of an executor, that it begins or ends to work for a request.
on_query: Callable[[Record, object, Query], None] | None = None
on_statement: Callable[[Record, str], None] | None = None
on_job_changed: Callable[[], None] | None = None
# Where requests are traced: a call of `requests` is sent by calling the second argument; the lines for its head.
on_call: Traced | None = None
trace_lines: Callable[[], str] | None = None


def show(where: list[T], what: T) -> None:
    """Register once; a room may be installed again."""
    if what not in where:
        where.append(what)
