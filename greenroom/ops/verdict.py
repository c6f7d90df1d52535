"""The sentence at the top of the page: what is wrong, if anything, in words that name it.

Each rule below looks at the moment and may find something: its level, one sentence with the numbers, and what to do.
Which comes first, of several that are true at the same time: the one that explains the others.

    nobody serves > a worker blocked > deadlock > a worker died > connections held > pool > slow upstream > slow query
    > slow lock, name server, offloaded work > overload > CPU > errors > deadlines > other slow waits
    > stalls that are over > what is under way

A blocked worker makes everybody wait, so whatever else is seen in it may be its doing; connections held explain a pool
that is empty, and that in turn the refusals behind it.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..insight import stacks
from ..worker.balance import State
from .collect import BLOCKED_SECONDS, Moment, Seen

LEVELS = BAD, WATCH, OK = "bad", "watch", "ok"

# Who did not answer for so long while the loop did not turn either has the GIL taken from it.
UNANSWERED_SECONDS = 1.5
SLOW_BOOT_SECONDS = 15.0
RECENT_SECONDS = 60.0
# What a few requests do is no verdict about the server.
FEWEST = 3
SHARE_OF_WAITING = 0.3
SLOW_SECONDS = 1.0
SLOWER_THAN_USUAL = 3.0
# Who has waited so long may be one alone, and is still worth a word.
HANGING_SECONDS = 30.0
# Streams sleep, are read slowly, and listen to events and queues: such waits are no trouble, however many and long.
PATIENT_STATES = ("sleep", "client")
PATIENT_DETAILS = ("event", "queue")
# A line this long is no burst any more, whether its clients bear with it or not.
LONG_LINE_SECONDS = 0.5
FULL_CPU = 0.9
LAGGING_SECONDS = 0.1
ERROR_SHARE = 0.05
MOST_FAIL = 0.5
STALLING_SECONDS = 1.0

MOST_CALLS = 30

Finding = dict[str, Any]


def findings(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    """What is wrong, worst first; one that says "Healthy" if nothing is. `seen` is the rest of the view."""
    found = [finding for rule in RULES for finding in rule(moment, seen)]
    if not any(finding["level"] != OK for finding in found):
        found.insert(0, _healthy(seen))
    return sorted(found, key=lambda finding: LEVELS.index(finding["level"]))


def finding(level: str, sentence: str, advice: str = "", **more: Any) -> Finding:
    return {"level": level, "sentence": sentence, "advice": advice, **more}


def _healthy(seen: Mapping[str, Any]) -> Finding:
    total = seen["total"]
    rest = ""
    if total["requests_rate"] >= 0.05:
        rest = f": {total['requests_rate']:.3g} requests/s"
        if total["p95"] is not None:
            rest += f", 95 % of them within {duration(total['p95'])}"
    return finding(OK, f"Healthy{rest}.", cause="healthy")


def _nobody_serves(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    if moment.is_stopping:
        return [
            finding(WATCH, f"The server stops: {_requests(seen['total']['in_flight'])} to finish.", cause="stopping")
        ]
    if seen["total"]["workers_serving"]:
        return []
    booting = [worker for worker in moment.workers if worker.state == State.BOOTING and not worker.is_gone]
    died = _died(moment)
    if not booting:
        return [finding(BAD, "No worker runs.", "The server's log says why they ended.", cause="nobody")]
    longest = max(moment.now - worker.first_seen_at for worker in booting)
    where = next((_top((worker.snapshot or {}).get("booting")) for worker in booting if worker.snapshot), "")
    level = BAD if died or longest > SLOW_BOOT_SECONDS else WATCH
    return [
        finding(
            level,
            f"No worker serves yet: {_count(len(booting), 'worker')} starting, for {duration(longest)}"
            + (f", now at {where}." if where else "."),
            "They import the application.",
            cause="booting",
        )
    ]


def _blocked(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    found = []
    for worker in moment.workers:
        if worker.is_gone or worker.state in (State.EMPTY, State.BOOTING):
            continue
        stall = worker.current_stall()
        seconds = max(worker.silent_seconds, float(stall.get("seconds") or 0.0))
        if seconds < BLOCKED_SECONDS:
            continue
        found.append(_blocked_finding(worker, stall, seconds, seen))
    return sorted(found, key=lambda one: -one["seconds"])


def _blocked_finding(worker: Seen, stall: Mapping[str, Any], seconds: float, seen: Mapping[str, Any]) -> Finding:
    others = max(0, worker.in_flight - 1)
    waiting = f"; {_count(others, 'other request')} and every new one wait" if others else "; its clients wait"
    timeout = seen["about"].get("timeout_seconds") or 0
    advice = f"The server kills it after {timeout} s and starts another." if timeout else ""
    common = {
        "worker": worker.number,
        "seconds": seconds,
        "cause": "blocked",
        "stack": list(stall.get("stack") or [])[:MOST_CALLS],
    }
    if worker.is_stopped:
        return finding(
            BAD,
            f"Worker {worker.number} (pid {worker.pid}) was stopped from outside (SIGSTOP) {duration(seconds)} ago.",
            f"kill -CONT {worker.pid} lets it go on. {advice}",
            **common,
        )
    where = str(stall.get("line") or "")
    route = f" in {stall['route']}" if stall.get("route") else ""
    holds_gil = worker.unanswered_seconds > UNANSWERED_SECONDS and worker.unanswered_seconds >= seconds - 1.0
    if holds_gil or stall.get("holds_gil"):
        place = f" at {where}{route}" if where else ""
        return finding(
            BAD,
            f"Worker {worker.number} is blocked{place} for {duration(seconds)}: C code holds the GIL{waiting}.",
            "A regular expression that backtracks, a big computation in a C library: run it elsewhere or bound it. "
            + advice,
            **{**common, "line": where, "holds_gil": True},
        )
    place = f" by {where}{route}" if where else ", by a line that it has not told yet"
    return finding(
        BAD,
        f"Worker {worker.number} is blocked{place} for {duration(seconds)}{waiting}.",
        f"That line computes or waits without letting others run. {advice}",
        **{**common, "line": where},
    )


def _deadlock(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    found = []
    for deadlock in seen["deadlocks"]:
        sentence, advice = DEADLOCKS[deadlock.get("kind", "circle")](deadlock)
        lines = [
            f"{_who(member)} waits at {_own(member['stack'])}"
            for member in (deadlock.get("members") or [])[:3]
            if member.get("stack")
        ]
        found.append(
            finding(BAD, sentence, f"{advice} {'; '.join(lines)}.", cause="deadlock", worker=deadlock["worker"])
        )
    return found


def _circle(deadlock: Mapping[str, Any]) -> tuple[str, str]:
    members = deadlock.get("members") or []
    names = " and ".join(_who(member) for member in members[:3])
    rest = deadlock.get("waiting", 0) - 3
    more = f" and {rest} more" if rest > 0 else ""
    return (
        f"Deadlock in worker {deadlock['worker']}: {names}{more} wait for each other's locks, {_since(deadlock)}.",
        "Take locks in the same order everywhere, or with a timeout.",
    )


def _self(deadlock: Mapping[str, Any]) -> tuple[str, str]:
    (member,) = deadlock["members"]
    return (
        f"Deadlock in worker {deadlock['worker']}: {_who(member)} waits for a lock that it holds itself, "
        f"{_since(deadlock)}.",
        f"It took it at {member.get('taken_at')}: don't take a lock in a __del__ or a signal handler, or use an RLock.",
    )


def _orphan(deadlock: Mapping[str, Any]) -> tuple[str, str]:
    first = deadlock["members"][0]
    holder = first.get("waits_for_route") or first.get("waits_for") or "a thread"
    count = deadlock.get("waiting", 1)
    return (
        f"Worker {deadlock['worker']}: {_requests(count)} wait{'s' if count == 1 else ''} for a lock that nobody will "
        f"release, {_since(deadlock)}: {holder} took it at {first.get('taken_at')} and ended.",
        "Release it whatever happens: take it using `with`.",
    )


DEADLOCKS = {"circle": _circle, "self": _self, "orphan": _orphan}


def _since(deadlock: Mapping[str, Any]) -> str:
    return f"for {duration(deadlock.get('since_seconds') or 0.0)}"


def _who(member: Mapping[str, Any]) -> str:
    return str(member.get("route") or member.get("request") or "a thread")


def _died(moment: Moment) -> list[dict[str, Any]]:
    return [
        event for event in moment.events if event["kind"] == "died" and moment.now - event["since"] < RECENT_SECONDS
    ]


def _dead_workers(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    gone = [worker for worker in moment.workers if worker.is_gone and worker.state not in (State.EMPTY, State.DRAINING)]
    died = _died(moment)
    if len(died) + len(gone) >= FEWEST:
        return [
            finding(
                BAD,
                f"Workers die again and again: {len(died) + len(gone)} in the last minute{_died_of(died)}.",
                "The log has each one's last words; out of memory, a crash in C code, or the worker timeout kill them.",
                cause="died",
            )
        ]
    found = [
        finding(BAD, f"Worker {worker.number} (pid {worker.pid}) has just died.", _DIED_ADVICE, cause="died")
        for worker in gone
    ]
    for event in reversed(died):
        replaced = any(
            worker.state in (State.SERVING, State.RETIRING) and worker.first_seen_at >= event["since"] - 2.0
            for worker in moment.workers
        )
        with_it = f", with {_requests(event.get('had', 0))} in it" if event.get("had") else ""
        if stall := event.get("stall"):
            by = " by C code that held the GIL" if stall["holds_gil"] and not stall["line"] else ""
            with_it += f", blocked for {duration(stall['seconds'])}{by}{_at(stall)}"
        ago = duration(moment.now - event["since"])
        found.append(
            finding(
                WATCH if replaced else BAD,
                f"Worker {event['worker']} (pid {event['pid']}) died {ago} ago{with_it}; "
                + ("its replacement serves." if replaced else "no replacement serves yet."),
                _DIED_ADVICE,
                cause="died",
                worker=event["worker"],
            )
        )
    return found


def _at(stall: Mapping[str, Any]) -> str:
    """Where, as far as it is known: " at file:line in /route"."""
    route = f" in {stall['route']}" if stall.get("route") else ""
    return f" at {stall['line']}{route}" if stall.get("line") else route


def _died_of(died: Sequence[Mapping[str, Any]]) -> str:
    """The line at which most of those that died blocked were."""
    stalls = [event["stall"] for event in died if event.get("stall")]
    if not stalls:
        return ""
    place, count = Counter(_at(stall) for stall in stalls).most_common(1)[0]
    return f", {len(stalls)} of them blocked" + (f", {count}{place}" if place else "")


_DIED_ADVICE = (
    "Killed from outside, out of memory, a crash in C code, or the worker timeout: the server's log says which."
)


def _pool(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
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
                    f"The connections to {pool['name']} are the bottleneck: {waiting:g} of {_requests(total)} "
                    f"wait for one{size}.",
                    "Raise GREENROOM_UPSTREAM_CONNECTIONS, if that upstream can bear it.",
                    cause="upstream_pool",
                )
            ]
        sentence = f"The database pool is the bottleneck: {waiting:g} of {_requests(total)} wait for one{size}"
        if held is not None:
            return [
                finding(
                    BAD,
                    f"{sentence}, because {_where(held)} keeps one while it waits for {_other(held)}.",
                    _held_advice(held),
                    cause="held",
                )
            ]
        longest = max((row["longest_seconds"] for row in seen["waits"] if row["state"] == "pool"), default=0.0)
        return [
            finding(
                BAD,
                f"{sentence}, the longest for {duration(longest)}.",
                "Raise the pool's size, if the database can bear it, or shorten what is done with a connection.",
                cause="pool",
            )
        ]
    if held is not None and (held.get("gain") or 0) >= 1.5:
        return [
            finding(
                WATCH,
                f"{_where(held)} keeps a database connection while it waits for {_other(held)}: "
                f"{held.get('count', 0):g} times, {duration(held['seconds'] / max(1, held.get('count', 1)))} each.",
                _held_advice(held),
                cause="held",
            )
        ]
    return []


def _held_advice(held: Mapping[str, Any]) -> str:
    gain = held.get("gain") or 0
    promise = f" Releasing it would let {gain:.2g} times as many requests through." if gain > 1.05 else ""
    return f"Call session.commit() or session.rollback() before {held.get('upstream') or 'that call'}.{promise}"


def _other(held: Mapping[str, Any]) -> str:
    return str(held.get("host") or held.get("upstream") or "somebody else")


def _where(held: Mapping[str, Any]) -> str:
    line = str(held.get("used") or held.get("checkout") or "somebody")
    return f"{held['route']} ({line})" if held.get("route") else line


def _is_patient(row: Mapping[str, Any]) -> bool:
    return row["state"] in PATIENT_STATES or (row["state"] == "lock" and row["detail"] in PATIENT_DETAILS)


def concerned(states: Mapping[str, float], waits: Sequence[Mapping[str, Any]]) -> float:
    """How many requests are in flight that want to go on: without those that wait of their own will.

    `states` are how many are in each state, `waits` what they wait for.
    """
    told: float = sum(row["count"] for row in waits if _is_patient(row) and row["state"] not in PATIENT_STATES)
    return max(0.0, sum(count for state, count in states.items() if state not in PATIENT_STATES) - told)


def _slow_wait(
    state: str, kinds: str, describe: Callable[[str, str], str], advice: str, worst: str = BAD
) -> Callable[..., list[Finding]]:
    """A rule: too many requests wait in this state for too long. `kinds` is what they wait for, many of them.

    What is slow is judged for each host, query, ...; whether that is much for all of these together, so that many who
    wait for different things are noticed as well. Which of them is slow is said where one of them is most of it.
    """

    def rule(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
        total = concerned(seen["in_flight_states"], seen["waits"])
        rows = [row for row in seen["waits"] if row["state"] == state and not _is_patient(row)]
        usual = {row["host"]: row["usual_seconds"] for row in seen["upstreams"]} if state == "upstream" else {}
        slow = [row for row in rows if _is_slow(row, usual.get(row["detail"]))]
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
        return [finding(level, describe(detail, numbers), advice, cause=state, detail=detail)]

    return rule


def _is_slow(row: Mapping[str, Any], usual_seconds: float | None) -> bool:
    # Who is seen waiting is on average in the middle of it.
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
        return first["detail"], f"{first['count']:g} of {_requests(total)} wait for it, the longest for {longest}"
    return "", f"{count:g} of {_requests(total)} wait for {len(rows)} {kinds}, the longest for {longest}"


def middle(weighted: Iterable[tuple[float, float]]) -> float:
    """The median of (value, how often); 0.0 of nothing."""
    rows = sorted(weighted)
    left = sum(count for _, count in rows) / 2
    for value, count in rows:
        left -= count
        if left < 0:
            return value
    return rows[-1][0] if rows else 0.0


def _overload(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    total = seen["total"]
    said = [(worker.snapshot or {}).get("worker") or {} for worker in moment.workers if not worker.is_gone]
    line_seconds = max((one.get("line_seconds", 0.0) for one in said), default=0.0)
    if total["shed_rate"] < 0.5 and line_seconds < LONG_LINE_SECONDS:
        return []
    busiest = max((worker.cpu_ratio for worker in moment.workers), default=0.0)
    why = ""
    if busiest >= 0.75:
        why = f"; the CPU is the limit (a worker uses {busiest:.0%} of a core)"
    elif _is_robbed(moment):
        why = f"; other programs use the CPU (a worker gets {busiest:.0%} of a core)"
    or_left = ", or their clients leave before their turn" if any(one.get("left_requests") for one in said) else ""
    what = f"{total['shed_rate']:.3g} requests/s are turned away with 503{or_left}"
    if total["shed_rate"] < 0.5:
        what = f"{total['queued']:g} requests wait in line, for {line_seconds:.2g} s"
    return [
        finding(
            BAD,
            f"Overload: {what}, {total['goodput_rate']:.3g}/s are served well{why}.",
            "More comes than can be served. " + _overload_advice(moment),
            cause="overload",
        )
    ]


def _overload_advice(moment: Moment) -> str:
    return _ROBBED_ADVICE if _is_robbed(moment) else _cpu_advice(moment)


_ROBBED_ADVICE = "Look at what else runs here (top), or give the server a machine of its own."


def _is_robbed(moment: Moment) -> bool:
    """Whether the machine has no CPU left, and our workers use less than half of it."""
    used = sum(worker.cpu_ratio for worker in moment.workers)
    return moment.machine_cpu_ratio >= FULL_CPU and used < 0.5 * moment.cores


def _robbed(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    if not _is_robbed(moment) or seen["total"]["lag_seconds"] < LAGGING_SECONDS:
        return []
    used = sum(worker.cpu_ratio for worker in moment.workers)
    return [
        finding(
            WATCH,
            f"Other programs use this machine's CPU: the workers get {used:.2g} of {moment.cores} cores, and are late.",
            _ROBBED_ADVICE,
            cause="robbed",
        )
    ]


def _cpu_advice(moment: Moment) -> str:
    workers = len(moment.workers)
    if workers < moment.cores:
        return f"{_count(workers, 'worker')} for {moment.cores} cores: raise WEB_CONCURRENCY."
    return "All cores have their worker: make the busiest routes cheaper (see cpu below), or add machines."


def _cpu(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    lagging = [
        worker
        for worker in moment.workers
        if worker.cpu_ratio >= FULL_CPU and worker.line["lag_seconds"] >= LAGGING_SECONDS
    ]
    if not lagging:
        return []
    names = ", ".join(str(worker.number) for worker in lagging)
    lag = max(worker.line["lag_seconds"] for worker in lagging)
    return [
        finding(
            WATCH,
            f"The CPU is full: worker {names} computes all the time, and what is ready waits {duration(lag)}.",
            _cpu_advice(moment),
            cause="cpu",
        )
    ]


def _errors(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    total = seen["total"]
    if total["error_rate"] < 0.1 or total["error_rate"] < ERROR_SHARE * total["requests_rate"]:
        return []
    worst = max(seen["routes"], key=lambda row: row["errors"], default=None)
    where = f", most of them in {worst['route']}" if worst and worst["errors"] else ""
    return [
        finding(
            BAD if total["error_rate"] >= MOST_FAIL * total["requests_rate"] else WATCH,
            f"{total['error_rate']:.3g} of {total['requests_rate']:.3g} requests/s fail (status 500 or more){where}.",
            "The application's log has the tracebacks.",
            cause="errors",
        )
    ]


def _deadlines(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    total = seen["total"]
    if total["expired_rate"] < 0.1 or total["expired_rate"] < ERROR_SHARE * total["requests_rate"]:
        return []
    return [
        finding(
            WATCH,
            f"{total['expired_rate']:.3g} requests/s run out of their time budget.",
            "What they wait for most is in the table of routes.",
            cause="deadlines",
        )
    ]


def _stalls(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    recent = [stall for stall in seen["stalls"]["last"] if stall["ago_seconds"] < RECENT_SECONDS and stall.get("line")]
    by_line: dict[str, list[float]] = {}
    for stall in recent:
        # What the machine took away in the meantime is not the line's doing.
        own = stall["seconds"] - (stall.get("stolen_seconds") or 0.0)
        by_line.setdefault(str(stall["line"]), []).append(max(0.0, own))
    line, seconds = max(by_line.items(), key=lambda item: sum(item[1]), default=("", [0.0]))
    if sum(seconds) < STALLING_SECONDS:
        return []
    last = next(stall for stall in recent if stall["line"] == line)
    route = f" ({last['route']})" if last.get("route") else ""
    gil = ", C code held the GIL" if last.get("holds_gil") else ""
    return [
        finding(
            WATCH,
            f"{line}{route} blocked worker {last['worker']} for {duration(sum(seconds))} in the last minute "
            f"({_count(len(seconds), 'stall')}{gil}).",
            "While it runs, no other request of that worker moves.",
            cause="stalls",
            line=line,
        )
    ]


def _under_way(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    """Nothing to worry about, and worth knowing."""
    found = []
    patient = [row for row in seen["waits"] if row["state"] == "lock" and _is_patient(row)]
    if sum(row["count"] for row in patient) >= FEWEST:
        count = sum(row["count"] for row in patient)
        names = " or ".join(row["detail"] for row in patient)
        longest = duration(max(row["longest_seconds"] for row in patient))
        words = f"{_requests(count)} wait for a word from others ({names}), the longest for {longest}, as streams do."
        found.append(finding(OK, words))
    for worker in moment.workers:
        if worker.state == State.DRAINING and not worker.is_gone:
            left = _requests(worker.in_flight)
            found.append(finding(OK, f"Worker {worker.number} (pid {worker.pid}) is being replaced: {left} to finish."))
        if worker.state == State.BOOTING and seen["total"]["workers_serving"]:
            age = duration(moment.now - worker.first_seen_at)
            found.append(finding(OK, f"Worker {worker.number} (pid {worker.pid}) has been starting for {age}."))
    return found


def _lock_words(lock: str, numbers: str) -> str:
    if not lock:
        return f"Locks or threads are the bottleneck: {numbers}."
    return f"A {'thread' if lock.startswith('thread ') else 'lock'} is the bottleneck ({lock}): {numbers}."


RULES: tuple[Callable[[Moment, Mapping[str, Any]], list[Finding]], ...] = (
    _nobody_serves,
    _blocked,
    _deadlock,
    _dead_workers,
    _pool,
    _slow_wait(
        "upstream",
        "hosts",
        lambda host, numbers: f"Upstream {host} is slow: {numbers}." if host else f"Upstreams are slow: {numbers}.",
        "Ask who runs it; a shorter timeout or a budget for the route keeps requests from piling up.",
    ),
    _slow_wait(
        "query",
        "different queries",
        lambda query, numbers: f"The database is slow: {numbers}{f' ({query[:80]})' if query else ''}.",
        "EXPLAIN what is slow; see whether it waits for a lock of another transaction, or the database for its disk.",
    ),
    _slow_wait(
        "lock",
        "locks and threads",
        _lock_words,
        "Hold locks for less, above all not while waiting for somebody else; see what the threads do.",
    ),
    _slow_wait(
        "dns",
        "names",
        lambda name, numbers: f"The name server is slow{f' for {name}' if name else ''}: {numbers}.",
        "Look at resolv.conf.",
    ),
    _slow_wait(
        "offload",
        "functions",
        lambda name, numbers: f"Offloaded work is slow{f' ({name})' if name else ''}: {numbers}.",
        "Its threads are all busy, or it computes for long.",
    ),
    _overload,
    _cpu,
    _robbed,
    _errors,
    _deadlines,
    _slow_wait(
        "other",
        "things",
        lambda name, numbers: f"Requests wait long{f' ({name})' if name else ''}: {numbers}.",
        "Their stacks say at which line; a socket without a timeout, a child process, code of asyncio.",
        worst=WATCH,
    ),
    _stalls,
    _under_way,
)


def duration(seconds: float) -> str:
    if seconds < 0.01:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _top(stack: Any) -> str:
    return str(stack[0]) if stack else ""


def _own(stack: Any) -> str:
    """The innermost call of the application's own code, as `file:line function`."""
    return next((str(call) for call in stack if _is_own(str(call).rpartition(":")[0])), _top(stack))


@functools.cache
def _is_own(file: str) -> bool:
    """Files of packages are shown without the folder they are installed in, so they are not found from here."""
    return os.path.exists(file) and not stacks.is_installed(os.path.abspath(file))


def _requests(count: float) -> str:
    return _count(int(count), "request")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
