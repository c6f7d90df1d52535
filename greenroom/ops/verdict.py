"""The sentence at the top of the page: what is wrong, if anything, in words that name it.

Each rule below looks at the moment and may find something: its level, one sentence with the numbers, and what to do.
Which comes first, of several that are true at the same time: the one that explains the others.

    nobody serves > a worker blocked > deadlock > a worker died > connections held > pool > slow upstream > slow query
    > overload > CPU > errors > deadlines > stalls that are over > what is under way

A blocked worker makes everybody wait, so whatever else is seen in it may be its doing; connections held explain a pool
that is empty, and that in turn the refusals behind it.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from ..insight import stacks
from ..worker.balance import State
from .collect import Moment, Seen

LEVELS = BAD, WATCH, OK = "bad", "watch", "ok"

# The heartbeat comes 20 times a second; on a busy machine it is late without anybody's fault.
BLOCKED_SECONDS = 1.0
# Who did not answer for so long while the loop did not turn either has the GIL taken from it.
UNANSWERED_SECONDS = 1.5
SLOW_BOOT_SECONDS = 15.0
RECENT_SECONDS = 60.0
# What a few requests do is no verdict about the server.
FEWEST = 3
SHARE_OF_WAITING = 0.3
SLOW_SECONDS = 1.0
SLOWER_THAN_USUAL = 3.0
FULL_CPU = 0.9
LAGGING_SECONDS = 0.1
ERROR_SHARE = 0.05
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
        stall = _current_stall(worker)
        seconds = max(worker.silent_seconds, float(stall.get("seconds") or 0.0))
        if seconds < BLOCKED_SECONDS:
            continue
        found.append(_blocked_finding(worker, stall, seconds, seen))
    return sorted(found, key=lambda one: -one["seconds"])


def _current_stall(worker: Seen) -> Mapping[str, Any]:
    if worker.silent_seconds < BLOCKED_SECONDS:
        return {}
    if worker.peeked is not None:
        return worker.peeked
    stall = ((worker.snapshot or {}).get("stalls") or {}).get("current") or {}
    fresh = worker.unanswered_seconds < worker.silent_seconds
    return stall if fresh else {}


def _blocked_finding(worker: Seen, stall: Mapping[str, Any], seconds: float, seen: Mapping[str, Any]) -> Finding:
    others = max(0, int(worker.line["in_flight"]) - 1)
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
                f"Workers die again and again: {len(died) + len(gone)} in the last minute.",
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


_DIED_ADVICE = (
    "Killed from outside, out of memory, a crash in C code, or the worker timeout: the server's log says which."
)


def _pool(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    """Held connections explain a pool that is empty; so both are looked at together."""
    total = sum(seen["in_flight_states"].values())
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
        longest = max((row for row in _state_seconds(seen, "pool")), default=0.0)
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


def _state_seconds(seen: Mapping[str, Any], state: str, detail: str | None = None) -> list[float]:
    return [
        row.get("state_seconds") or 0.0
        for row in seen["in_flight"]
        if row.get("state") == state and (detail is None or row.get("detail") == detail)
    ]


def _slow_wait(state: str, describe: Callable[[str, str], str], advice: str) -> Callable[..., list[Finding]]:
    def rule(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
        total = sum(seen["in_flight_states"].values())
        waiting = seen["in_flight_states"].get(state, 0)
        if waiting < FEWEST or waiting < SHARE_OF_WAITING * total:
            return []
        details: dict[str, list[float]] = {}
        for row in seen["in_flight"]:
            if row.get("state") == state:
                details.setdefault(str(row.get("detail") or "?"), []).append(row.get("state_seconds") or 0.0)
        detail, seconds = max(details.items(), key=lambda item: len(item[1]), default=("", []))
        # The rows are the longest requests only; of what they wait for, they are representative.
        share = len(seconds) / max(1, sum(len(each) for each in details.values()))
        middle = sorted(seconds)[len(seconds) // 2] if seconds else 0.0
        usual = next((row["usual_seconds"] for row in seen["upstreams"] if row["host"] == detail), None)
        is_slower = usual is not None and middle > SLOWER_THAN_USUAL * usual and middle > SLOW_SECONDS / 4
        # Who is seen waiting is on average in the middle of it.
        if share < 0.5 or not (2 * middle >= SLOW_SECONDS or is_slower):
            return []
        numbers = f"{waiting * share:.0f} of {_requests(total)} wait for it, the longest for {duration(max(seconds))}"
        if is_slower and usual is not None:
            numbers += f"; on average it takes {duration(usual)}"
        return [finding(BAD, describe(detail, numbers), advice, cause=state, detail=detail)]

    return rule


def _overload(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    total = seen["total"]
    if total["shed_rate"] < 0.5:
        return []
    busiest = max((worker.cpu_ratio for worker in moment.workers), default=0.0)
    why = ""
    if busiest >= 0.75:
        why = f"; the CPU is the limit (a worker uses {busiest:.0%} of a core)"
    elif _is_robbed(moment):
        why = f"; other programs use the CPU (a worker gets {busiest:.0%} of a core)"
    return [
        finding(
            BAD,
            f"Overload: {total['shed_rate']:.3g} requests/s are turned away with 503, "
            f"{total['goodput_rate']:.3g}/s are served well{why}.",
            "More comes than can be served. " + _cpu_advice(moment),
            cause="overload",
        )
    ]


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
            "Look at what else runs here (top), or give the server a machine of its own.",
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
            WATCH,
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
    for worker in moment.workers:
        if worker.state == State.DRAINING and not worker.is_gone:
            left = _requests(worker.line["in_flight"])
            found.append(finding(OK, f"Worker {worker.number} (pid {worker.pid}) is being replaced: {left} to finish."))
        if worker.state == State.BOOTING and seen["total"]["workers_serving"]:
            age = duration(moment.now - worker.first_seen_at)
            found.append(finding(OK, f"Worker {worker.number} (pid {worker.pid}) has been starting for {age}."))
    return found


RULES: tuple[Callable[[Moment, Mapping[str, Any]], list[Finding]], ...] = (
    _nobody_serves,
    _blocked,
    _deadlock,
    _dead_workers,
    _pool,
    _slow_wait(
        "upstream",
        lambda host, numbers: f"Upstream {host} is slow: {numbers}.",
        "Ask who runs it; a shorter timeout or a budget for the route keeps requests from piling up.",
    ),
    _slow_wait(
        "query",
        lambda query, numbers: f"The database is slow: {numbers} ({query[:80]}).",
        "EXPLAIN that query; see whether it waits for a lock of another transaction.",
    ),
    _slow_wait(
        "lock",
        lambda lock, numbers: f"A lock is the bottleneck ({lock}): {numbers}.",
        "Hold it for less, above all not while waiting for somebody else.",
    ),
    _slow_wait("dns", lambda name, numbers: f"The name server is slow for {name}: {numbers}.", "Look at resolv.conf."),
    _slow_wait(
        "offload",
        lambda name, numbers: f"Offloaded work is slow ({name}): {numbers}.",
        "Its threads are all busy, or it computes for long.",
    ),
    _overload,
    _cpu,
    _robbed,
    _errors,
    _deadlines,
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
