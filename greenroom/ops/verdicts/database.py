"""A database that says nothing, lets nobody in, or has no slot left. No advice here sends it more work.

A query can wait long for a lock of somebody else's; a BEGIN, a ROLLBACK or a new connection can't. So these tell a
database that stands still from one that is busy.
"""

from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from ..shapes import View
from .finding import BAD, FEWEST, WATCH, Finding, finding
from .peers import callers, routes
from .words import duration, requests

SILENT_SECONDS = 2.5
# Statements that wait for nobody but the server itself.
AT_ONCE = ("BEGIN", "ROLLBACK", "SELECT ?", "SELECT pg_catalog.version()")
LATELY_SECONDS = 15.0
# What it says to whom it does not let in, and is well itself.
LOGIN_REFUSED = ("password authentication failed", "no pg_hba.conf entry", 'FATAL:  role "', 'FATAL:  database "')


def unreachable(moment: Moment, seen: View) -> list[Finding]:
    found = []
    for database in seen["databases"]:
        one = (
            _full(database, seen) or _refusing(database, seen) or _silent(database, seen) or _held_back(database, seen)
        )
        if one is not None:
            found.append(one)
    return found


def _waiting(seen: View) -> list[Mapping[str, Any]]:
    return [row for row in seen["waits"] if row["state"] in ("query", "pool")]


def _concerned(seen: View) -> tuple[int, str, str]:
    """How many wait for the database or a connection to it; their routes, and lines, as words."""
    rows = _waiting(seen)
    lines = [line for row in rows for line in row.get("lines") or []]
    names = routes(lines)
    return int(sum(row["count"] for row in rows)), f" ({names})" if names else "", callers(lines)


def _silent(database: Mapping[str, Any], seen: View) -> Finding | None:
    heard = database["heard_seconds"]
    stuck = [row for row in seen["waits"] if row["state"] == "query" and row["longest_seconds"] >= SILENT_SECONDS]
    plain = [row for row in stuck if row["detail"] in AT_ONCE or row["detail"].startswith("connect to ")]
    is_connecting = any(row["detail"].startswith("connect to ") and database["name"] in row["detail"] for row in plain)
    if not plain or (heard is not None and heard < SILENT_SECONDS) or (heard is None and not is_connecting):
        return None
    count, names, lines = _concerned(seen)
    longest = max(row["longest_seconds"] for row in stuck)
    since = longest if heard is None else heard
    return finding(
        BAD,
        f"PostgreSQL at {database['name']} answers nobody since {duration(since)}: {requests(count)} wait for it{names}"
        f"{'; new connections wait, too' if is_connecting else ''}.",
        "Look at it there: is its process stopped, its host or network gone, its disk full? Its own log says; where it "
        "is PgBouncer, SHOW POOLS says whether it has no connection left (cl_waiting). Larger pools and more workers "
        "would not help. Routes that need it answer 504 when their budget is over.",
        cause="database_silent",
        database=database["name"],
        lines=lines,
        seconds=since,
    )


def _held_back(database: Mapping[str, Any], seen: View) -> Finding | None:
    """Statements that wait for nobody but the server get no answer on some connections, and do on others."""
    heard = database["heard_seconds"]
    if heard is None or heard >= SILENT_SECONDS or len(seen["databases"]) > 1:
        return None
    stuck = [row for row in seen["waits"] if row["state"] == "query" and row["detail"] in AT_ONCE]
    stuck = [row for row in stuck if row["longest_seconds"] >= SILENT_SECONDS]
    if not stuck:
        return None
    first = max(stuck, key=lambda row: row["longest_seconds"])
    lines = [line for row in stuck for line in row.get("lines") or []]
    names = routes(lines)
    count = sum(row["count"] for row in stuck)
    return finding(
        BAD if count >= FEWEST else WATCH,
        f"Connections to PostgreSQL at {database['name']} get no answer while it answers on others: {requests(count)} "
        f"wait{f' ({names})' if names else ''}, the longest for {duration(first['longest_seconds'])} for a plain "
        f"{first['detail'].split()[0]}.",
        "Between here and there somebody holds them back: a firewall or a load balancer that has forgotten idle "
        "connections (keepalives_idle=30 in the URL, pool_recycle below its limit), a failover, or a PgBouncer "
        "without a free connection (SHOW POOLS there: cl_waiting)."
        + (f" Waited for at {called}." if (called := callers(lines)) else ""),
        cause="database_connections",
        database=database["name"],
    )


def _refusing(database: Mapping[str, Any], seen: View) -> Finding | None:
    failures = database["refused"] + database["timed_out"] + database["failed"]
    heard, failed = database["heard_seconds"], database["failed_seconds"]
    if not failures or failed is None or failed > LATELY_SECONDS or (heard is not None and heard < failed):
        return None
    what = "refuses connections" if database["refused"] else "lets nobody connect"
    if database["timed_out"] and not database["refused"]:
        what = "answers no connection in time"
    names = routes(database["bad_lines"])
    is_login = any(words in database["words"] for words in LOGIN_REFUSED)
    since = f", last heard {duration(heard)} ago" if heard is not None else ", and was never heard"
    do = "Start it, or see in its log why it went down; is the address right?"
    if is_login:
        what, since = "refuses the login", ""
        do = (
            "It runs: a password that was changed, or another user or database than it has, in the URL of this server "
            "(its environment is read at a start)."
        )
    called = callers(database["bad_lines"])
    return finding(
        BAD,
        f"PostgreSQL at {database['name']} {what} ({failures} failed in the last "
        f"{duration(LATELY_SECONDS)}{since}){f': {names} need it' if names else ''}.",
        f"{do} It said: {database['words']}." + (f" Called at {called}." if called else ""),
        cause="database_refuses",
        database=database["name"],
    )


def _full(database: Mapping[str, Any], seen: View) -> Finding | None:
    if not database["full"] or (database["failed_seconds"] or 0.0) > LATELY_SECONDS:
        return None
    count, names, _ = _concerned(seen)
    needed = routes(database["bad_lines"])
    waiting = f"; {requests(count)} wait for one{names}" if count else f"; {needed} need one" if needed else ""
    return finding(
        BAD if count or database["full"] > 2 else WATCH,
        f"PostgreSQL at {database['name']} is full: it has no free connection slot, and turned away "
        f"{database['full']:g} new connections in the last {duration(LATELY_SECONDS)}{waiting}.",
        "A pool can't grow beyond what PostgreSQL allows. See who holds the slots (pg_stat_activity); lower pool_size "
        "+ max_overflow of all processes that use it, put PgBouncer before it, or raise max_connections there.",
        cause="database_full",
        database=database["name"],
    )
