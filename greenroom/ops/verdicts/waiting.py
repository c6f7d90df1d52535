"""Requests that wait for too long: who is concerned, and when that is too long."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..collect import Moment
from ..shapes import View, WaitRow
from .finding import BAD, FEWEST, OK, WATCH, Finding, finding
from .peers import callers, name_of
from .words import duration, requests

SHARE_OF_WAITING = 0.3
SLOW_SECONDS = 1.0
SLOWER_THAN_USUAL = 3.0
# A request that has waited so long may be one alone, and is still worth a word.
HANGING_SECONDS = 30.0
# Streams sleep, are read slowly, and listen to events and queues: such waits are no trouble, however many and long.
PATIENT_STATES = ("sleep", "client")
PATIENT_DETAILS = ("event", "queue", "condition")
# Of these the line says more than the name.
SAY_LINE = ("lock", "other", "offload")
ROW_LOCK = (
    "It writes: most likely these wait for each other's rows, or for a transaction that is left open "
    "(SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity WHERE wait_event_type = 'Lock')."
)
SEE_WHICH = (
    "SELECT pid, wait_event_type, pg_blocking_pids(pid), query FROM pg_stat_activity says which. End the one that "
    "blocks."
)
TABLE_LOCK = f"A lock of its table, mostly (a migration, VACUUM FULL, LOCK TABLE, a transaction left open): {SEE_WHICH}"
STANDS_STILL = (
    "A lock of its table (a migration, VACUUM FULL, LOCK TABLE), a server or a disk that stands still, or connections "
    f"that a firewall has forgotten: {SEE_WHICH}"
)
HEARD_SECONDS = 2.5
FEWEST_USUAL = 20
# So many times what the route asks of its database is no busy hour any more.
MUCH_SLOWER, MUCH_SLOWER_SECONDS = 100.0, 3.0


def is_patient(row: Mapping[str, Any]) -> bool:
    state, detail = row["state"], row["detail"]
    return state in PATIENT_STATES or (state == "lock" and detail in PATIENT_DETAILS) or is_stream(row)


def is_stream(row: Mapping[str, Any]) -> bool:
    """Whether the answer has begun, and goes on when something comes that has no name."""
    return bool(row["state"] == "other" and row["detail"] == "stream")


def concerned(states: Mapping[str, float], waits: Sequence[WaitRow]) -> float:
    """How many requests are in flight that want to go on: without those that wait of their own will.

    `states` are how many are in each state, `waits` what they wait for.
    """
    told: float = sum(row["count"] for row in waits if is_patient(row) and row["state"] not in PATIENT_STATES)
    return max(0.0, sum(count for state, count in states.items() if state not in PATIENT_STATES) - told)


def slow_wait(
    state: str, kinds: str, describe: Callable[[str, str], str], do: str | Callable[[str], str], worst: str = BAD
) -> Callable[..., list[Finding]]:
    """A rule: too many requests wait in this state for too long. `kinds` is what they wait for, many of them.

    Slowness is judged for each host, query, ...; its extent for all of these together, so that many requests that
    wait for different things are noticed as well. Which of them is slow is said where one of them is most of it.
    """

    def rule(moment: Moment, seen: View) -> list[Finding]:
        total = concerned(seen["in_flight_states"], seen["waits"])
        rows = [row for row in seen["waits"] if row["state"] == state and not is_patient(row)]
        usual = {row["host"]: row["usual_seconds"] for row in seen["upstreams"]} if state == "upstream" else {}
        # What nobody has named are primitives of gevent's own, and most that wait for them listen.
        named = [row for row in rows if state != "other" or row["detail"]]
        slow = [row for row in named if is_slow(row, usual.get(row["detail"]))]
        hanging = [row for row in rows if _is_hanging(row["longest_seconds"], usual.get(row["detail"]))]
        count = sum(row["count"] for row in slow)
        level = worst
        if count < FEWEST or count < SHARE_OF_WAITING * total:
            stuck = [row for row in hanging if _is_hanging(row["middle_seconds"], usual.get(row["detail"]))]
            level = worst if sum(row["count"] for row in stuck) >= FEWEST else WATCH
            slow = stuck or hanging
        if not slow:
            return []
        detail, numbers = _waiting_words(slow, total, kinds)
        if detail and usual.get(detail) is not None and _is_slower(slow[0]["middle_seconds"], usual[detail]):
            numbers += f"; on average it takes {duration(usual[detail])}"
        advice = do if isinstance(do, str) else do(detail)
        lines = [line for row in slow for line in row.get("lines") or []]
        called = callers(lines)
        if state == "upstream" and detail and (name := name_of(detail, lines)) != f"Upstream {detail}":
            return [
                finding(
                    level, f"{name} is slow: {numbers}.", f"{advice} Called at {called}.", cause=state, detail=detail
                )
            ]
        if called and state in SAY_LINE:
            return [finding(level, describe(detail, f"{numbers}, at {called}"), advice, cause=state, detail=detail)]
        more = f" Waited for at {called}." if called else ""
        if state == "query" and (told := _of_the_database(detail, numbers, slow, lines, seen)):
            return [finding(level, told[0], f"{told[1]}{more}", cause=state, detail=detail)]
        return [finding(level, describe(detail, numbers), f"{advice}{more}", cause=state, detail=detail)]

    return rule


def _of_the_database(
    detail: str,
    numbers: str,
    rows: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    seen: View,
) -> tuple[str, str] | None:
    """Sentence and advice where a query waits for a lock, as far as is seen from here; None: it may just be slow."""
    if writes(detail):
        words = f"Requests wait in the database, most likely for locks of rows: {numbers} ({detail[:80]})."
        return words, ROW_LOCK
    before = _quick_before(rows, lines, seen)
    if before is None:
        return None
    heard = [row["heard_seconds"] for row in seen["databases"]]
    is_well = len(heard) == 1 and heard[0] is not None and heard[0] < HEARD_SECONDS  # it answers others
    what = "Requests wait in the database, most likely for a lock"
    what = what if is_well else "The database does not answer what is quick otherwise"
    words = f"{what}: {numbers}; on average it takes {before} ({detail[:80]})."
    return words, TABLE_LOCK if is_well else STANDS_STILL


def _quick_before(rows: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]], seen: View) -> str | None:
    """How long the routes that wait have waited for their database before, in words, if that was next to nothing."""
    longest = max(row["longest_seconds"] for row in rows)
    named = {line["route"] for line in lines}
    before = [usual for route in seen["routes"] if route["route"] in named and (usual := route.get("usual"))]
    if longest < MUCH_SLOWER_SECONDS or not before or sum(one["count"] for one in before) < FEWEST_USUAL:
        return None
    place = seen["states"].index("query")
    most = max((one["by_state"][place] if place < len(one["by_state"]) else 0.0) for one in before)
    return duration(most) if longest >= MUCH_SLOWER * most else None


CHILDREN = ("subprocess", "child process")


def other_words(name: str, numbers: str) -> str:
    if name in CHILDREN:
        return f"Requests wait for child processes: {numbers}."
    return f"Requests wait long{f' ({name})' if name else ''}: {numbers}."


def other_advice(name: str) -> str:
    if name in CHILDREN:
        return (
            "See what the programs do (ps), and give the call a timeout=; what takes long belongs in a queue of jobs."
        )
    return "Their stacks say at which line; a socket without a timeout, a descriptor, code of asyncio."


def writes(statement: str) -> bool:
    """Whether a statement takes locks of rows."""
    words = statement.lower()
    return words.startswith(("update", "delete", "insert", "lock", "alter", "truncate")) or " for update" in words


def is_slow(row: Mapping[str, Any], usual_seconds: float | None = None) -> bool:
    # A request that is seen waiting is on average in the middle of it.
    return 2 * row["middle_seconds"] >= SLOW_SECONDS or _is_slower(row["middle_seconds"], usual_seconds)


def _is_slower(seconds: float, usual_seconds: float | None) -> bool:
    return usual_seconds is not None and seconds > max(SLOWER_THAN_USUAL * usual_seconds, SLOW_SECONDS / 4)


def _is_hanging(seconds: float, usual_seconds: float | None) -> bool:
    return seconds >= HANGING_SECONDS and (usual_seconds is None or seconds > SLOWER_THAN_USUAL * usual_seconds)


def _waiting_words(rows: Sequence[Mapping[str, Any]], total: float, kinds: str) -> tuple[str, str]:
    """The one that most of them wait for, or "", and the numbers in words."""
    count = sum(row["count"] for row in rows)
    longest = duration(max(row["longest_seconds"] for row in rows))
    first = rows[0]
    if first["detail"] and (len(rows) == 1 or first["count"] > count / 2):
        longest = duration(first["longest_seconds"])
        return first["detail"], f"{first['count']:g} of {requests(total)} wait for it, the longest for {longest}"
    return "", f"{count:g} of {requests(total)} wait for {len(rows)} {kinds}, the longest for {longest}"


def patient(moment: Moment, seen: View) -> list[Finding]:
    """Nothing to worry about, and worth knowing."""
    found = []
    patient = [row for row in seen["waits"] if is_patient(row) and row["state"] not in PATIENT_STATES]
    if sum(row["count"] for row in patient) >= FEWEST:
        count = sum(row["count"] for row in patient)
        names = " or ".join(row["detail"] for row in patient)
        longest = duration(max(row["longest_seconds"] for row in patient))
        words = f"{requests(count)} wait for a word from others ({names}), the longest for {longest}, as streams do."
        found.append(finding(OK, words, cause="patient"))
    return found
