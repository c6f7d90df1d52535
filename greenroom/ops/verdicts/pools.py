"""Pools of connections that run short, and connections that are kept while something else is waited for."""

from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from ..shapes import View
from .finding import BAD, FEWEST, WATCH, Finding, finding
from .peers import callers
from .waiting import SHARE_OF_WAITING, concerned
from .words import duration, requests

LONG_HELD_SECONDS = 0.5
# So long after its request a connection is not on its way back any more.
LEFT_SECONDS = 2.0


def pool_runs_short(moment: Moment, seen: View) -> list[Finding]:
    """Held connections explain a pool that is empty; so both are looked at together."""
    total = concerned(seen["in_flight_states"], seen["waits"])
    waiting = seen["in_flight_states"].get("pool", 0)
    held = next((row for row in seen["held"] if row["recent"] > 0), None)
    if waiting >= FEWEST and waiting >= SHARE_OF_WAITING * total:
        pool: Mapping[str, Any] = next((pool for pool in seen["pools"] if pool["waiting"]), {})
        size = f" of its {pool['size']:g} connections" if pool.get("size") else " of its connections"
        if pool.get("kind") == "upstream":
            return [
                finding(
                    BAD,
                    f"The connections to {pool['name']} are the bottleneck: {waiting:g} of {requests(total)} "
                    f"wait for one{size}.",
                    "Raise GREENROOM_UPSTREAM_CONNECTIONS, if that upstream can bear it.",
                    cause="upstream_pool",
                )
            ]
        sentence = f"The database pool is the bottleneck: {waiting:g} of {requests(total)} wait for one{size}"
        if held is not None:
            return [
                finding(
                    BAD,
                    f"{sentence}, because {_where(held)} keeps one while it waits for {_other(held)}.",
                    held_words(held),
                    cause="held",
                )
            ]
        longest = max((row["longest_seconds"] for row in seen["waits"] if row["state"] == "pool"), default=0.0)
        holder = pool.get("holder") or {}
        has = ""
        if holder.get("line") and holder["seconds"] >= LONG_HELD_SECONDS:
            route = f" ({holder['route']})" if holder.get("route") not in (None, "", "other") else ""
            has = f"; {holder['line']}{route} has had one for {duration(holder['seconds'])}"
        if holder.get("is_over") and holder.get("line") and holder["seconds"] >= LEFT_SECONDS:
            return [_never_given_back(sentence, holder)]
        if keeps := _keeps_while_it_waits(sentence, holder, seen):
            return [keeps]
        in_queries = seen["in_flight_states"].get("query", 0)
        do = "Shorten what is done with a connection, or raise the pool's size, if the database can bear it."
        if in_queries and in_queries >= 0.5 * (total - waiting):
            do = (
                "Those that have one wait for queries: make these quicker first; more of them at once are slower still."
            )
        return [
            finding(
                BAD,
                f"{sentence}, the longest for {duration(longest)}{has}.",
                do,
                cause="pool",
            )
        ]
    if held is not None and (held.get("gain") or 0) >= 1.5:
        return [
            finding(
                WATCH,
                f"{_where(held)} keeps a database connection while it waits for {_other(held)}: "
                f"{held.get('count', 0):g} times, {duration(held['seconds'] / max(1, held.get('count', 1)))} each.",
                held_words(held),
                cause="held",
            )
        ]
    return []


def _keeps_while_it_waits(sentence: str, holder: Mapping[str, Any], seen: View) -> Finding | None:
    """Of drivers whose queries we do not see it is known who has a connection, and what that request waits for now."""
    request = next((row for row in seen["in_flight"] if row["id"] == holder.get("request")), None)
    if request is None or request["state"] != "upstream" or holder.get("seconds", 0.0) < LONG_HELD_SECONDS:
        return None
    lines = [line for row in seen["waits"] if row["state"] == "upstream" for line in row.get("lines") or []]
    at = callers([line for line in lines if line["route"] == request["route"]], most=1)
    where = f"{holder['line']} ({request['route']})" if holder.get("line") else request["route"]
    return finding(
        BAD,
        f"{sentence}, because {where} keeps one while it waits for {request['detail'] or 'an upstream'}.",
        f"Call session.commit() or session.rollback() before that call{f' at {at}' if at else ''}: nobody else can use "
        "the connection meanwhile.",
        cause="held",
    )


def _never_given_back(sentence: str, holder: Mapping[str, Any]) -> Finding:
    route = f" ({holder['route']})" if holder.get("route") not in (None, "", "other") else ""
    return finding(
        BAD,
        f"{sentence}, because they are not given back: {holder['line']}{route} took one {duration(holder['seconds'])} "
        "ago, and its request is over.",
        "Give it back whatever happens: `with engine.connect() as connection`, or session.close(). A larger pool would "
        "only be used up later.",
        cause="pool_leak",
        line=holder["line"],
    )


def held_words(held: Mapping[str, Any]) -> str:
    gain = held.get("gain") or 0
    promise = f" Releasing it would let {times(gain)} times as many requests through." if gain > 1.05 else ""
    return f"Call session.commit() or session.rollback() before {held.get('upstream') or 'that call'}.{promise}"


def times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{round(ratio, 2 - len(str(int(ratio)))):.0f}"


def _other(held: Mapping[str, Any]) -> str:
    return str(held.get("host") or held.get("upstream") or "somebody else")


def _where(held: Mapping[str, Any]) -> str:
    line = str(held.get("used") or held.get("checkout") or "somebody")
    return f"{held['route']} ({line})" if held.get("route") else line
