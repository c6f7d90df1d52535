"""The state of a worker, as one dict that JSON can carry.

`snapshot(worker)` works from the watch thread while the hub is stuck: it takes no lock and only reads what the hub's
thread writes, again if that changed under its hands. Without insight (GREENROOM_INSIGHT=no) the parts that need it
are empty. Times are seconds; lengths since the worker's start unless said otherwise. Each list of seconds by state is
in the order of `states`. Everything that counts is monotonic for one `start_id`.

    version          int, 1
    start_id         str: this worker's life; counters begin at 0 with each
    pid              int
    started_at       Unix time
    age_seconds
    states           ["cpu", "ready", "upstream", ...]
    worker           state ("serving", ...), requests, connections, in_flight, queued (in line now),
                     line_seconds (until its last has its turn), limit_requests (0: adaptive),
                     load, load_limit, cost_seconds, rss_bytes,
                     shed_requests, left_requests, queued_requests, accepted,
                     connections_given_away, empty_turns (of the loop, in which nothing was done), is_spinning
    loop             is_idle, current_turn_seconds (how long the loop has not turned; 0.0 while it idles), turns,
                     busy_seconds, idle_seconds, last_turn_seconds, late_turns (longer than the threshold),
                     hub_seconds, request_seconds, background_seconds (greenlets of no request),
                     stolen_seconds (the thread was ready and the machine ran somebody else)
    seconds          [by state], all finished requests
    le               upper bounds of the latency buckets, seconds; the last is null (no bound)
    routes           {pattern: {count, statuses: {"2xx": n, ...}, seconds: [by state], total_seconds,
                     buckets: [n for each of le], bands: {"<bucket index>": [seconds by state]},
                     cut (deadline spent or client gone)}}; "other": no pattern known
    upstreams        {"host:port": {waits, seconds, requests, calls, status_<n>, refused,
                     timed_out, failed}}; what is beyond 200 hosts is in "other"
    pools            [{name, kind ("database", "upstream"), size (0: no limit), in_use, waiting, holders: [{request,
                     route, seconds, line, is_over (its request)}]}], those of one worker
    databases        {"host:port": {refused, timed_out, full, failed (connections), heard_seconds and failed_seconds
                     (ago, null: never), last_failure}}
    bad_callers      {"host:port": [{line, route, library, count}]}: lines that got bad answers or no connection
    failures         [{name (class), line, route, message, root, number (of errno), library, count, first_at, last_at,
                     last_since}]
    failed           {"class route": {class, route, count}}: the same, counted; bounded
    queries          {route: {requests, queries}}; repeated: [{line, route, statement, requests, count, most, seconds}]
    holders          [{name, taken_at, wanted_at, route, state, detail, line, library, count, longest_seconds}]: locks
                     that requests queue for, who has them, and what that one waits for
    executors        [{name, size, queued, at_work, state, detail, line, route}]
    garbage          count, seconds, longest_seconds: of the garbage collector
    growth           [{route, count, bytes}]: memory, for each request while the process grew
    clients          total, known, top: [{client, count}], shed: {class: n}; halved every ten seconds
    stalls           total, seconds, unblamed (stopped or stolen: nobody's fault), current: None or {seconds, request,
                     route, line, stack, holds_gil},
                     top: [{line, count, seconds, longest_seconds, route, last_at}] by seconds,
                     last: [{at, since, seconds, stolen_seconds, line, stack, request, route, holds_gil}] newest first
    held             [{taken, used, upstream (all `file:line`), host, route, count, seconds, held_seconds, rate,
                     rate_released, gain}]: `rate` is what the worker's pool can serve, requests/s; the worst first
    locks            deadlocks: [{kind ("circle", "self", "orphan": see locks), since_seconds, waiting: how many,
                     members: [{request, route, lock, waits_for and waits_for_route (who took the lock), taken_at (its
                     line), waited_seconds, stack}], bounded}], bounded
    greenlets        count, by_spawner: {"file:line": n} (most first, bounded)
    in_flight        [{id, route, method, path, client,
                     age_seconds, state, detail, state_seconds, budget_seconds (null: none),
                     is_cut, held_by (with state "lock": who has it), seconds: [by state],
                     waits: [{kind, detail, seconds}], greenlets}] oldest first, bounded;
                     `path` without its query, tokens, UUIDs and addresses of mail
    in_flight_states {state: n}, in_flight_routes {route: n}: all of them, also beyond the bound
    waiting          [{state, detail, count, middle_seconds, longest_seconds, lines: [{line, route, library, count}]}]:
                     what all of them wait for and how long they have been, most first; detail
                     "" is for all that the list is too short for

`stacks(worker, request_id)` -> {"id", "greenlets": [{"name", "state", "stack": ["file:line function", ...]}]}, with the
innermost call first; None when there is no such request any more.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import gevent

from .. import clock, redaction
from ..in_flight import FOREVER, Wait
from ..waits import threads
from . import pools, safepoint
from . import stacks as stack_lists
from .account import CPU, READY, STATES, Account
from .callers import attach, detail_of, waits_since
from .facts import again, bad_callers, databases, upstreams, waiting_for
from .locks import Waiter
from .observer import Insight
from .recent import Remembered
from .routes import LE

VERSION = 1
MOST_IN_FLIGHT = 200
MOST_REMEMBERED = 2000
MOST_STALL_LINES = 20
MOST_STALLS = 20


def snapshot(worker: Any, now: Callable[[], float] = clock.now) -> dict[str, Any]:
    """Return the state of `worker` (a GreenWorker that has begun to serve). Runs on: any thread; never switches."""
    serving = worker.serving
    insight: Insight | None = serving.insight
    moment = now()
    said: dict[str, Any] = {
        "version": VERSION,
        "pid": os.getpid(),
        "states": list(STATES),
        "le": [*LE, None],
        "worker": _worker(worker),
        "start_id": "",
        "started_at": 0.0,
        "age_seconds": 0.0,
        "seconds": [0.0] * len(STATES),
        "loop": {},
        "routes": {},
        "upstreams": {},
        "pools": [],
        "stalls": {},
        "held": [],
        "locks": {"deadlocks": []},
        "greenlets": {},
        "in_flight": [],
        "in_flight_states": {},
        "in_flight_routes": {},
        "waiting": [],
        **{name: {} for name in ("bad_callers", "databases", "failed", "queries", "garbage", "clients")},
        **{name: [] for name in ("failures", "repeated", "holders", "executors", "growth", "beside")},
    }
    if insight is not None:
        said.update(_insight(worker, insight, moment))
    return said


def stacks(worker: Any, request_id: str) -> dict[str, Any] | None:
    """The stacks of one request's greenlets, the innermost call first; None when it is over. Runs on: any thread.

    They are looked at in the loop's thread. While that is in C code, only the stack of what runs can be told.
    """
    insight: Insight | None = worker.serving.insight
    if insight is None:
        return None
    account = next((one for one in again(lambda: list(insight.slices.live)) if one.id == request_id), None)
    if account is None:
        return None
    if threads.is_loop_thread():
        return {"id": request_id, "greenlets": greenlets_of(insight, account)}
    found = safepoint.MAIN.ask(lambda frame: greenlets_of(insight, account, stack_lists.of_frame(frame)))
    if found is None:
        found = greenlets_of(insight, account, insight.stalls.stack_now(), is_here=False)
    return {"id": request_id, "greenlets": found}


def remembered(insight: Insight) -> Remembered:
    """Return the input of `ring.records_in`: the last minute, and its requests that have no answer yet."""
    now = insight.slices.now()
    live = again(lambda: list(insight.slices.live))[:MOST_REMEMBERED]
    rows = [(account.pattern(), now - account.began, account.seconds_at(now)) for account in live]
    return {**insight.ring.read(), "in_flight": rows}


def greenlets_of(
    insight: Insight, account: Account, running: stack_lists.Stack | None = None, *, is_here: bool = True
) -> list[dict[str, Any]]:
    """Describe each greenlet of a request.

    `running` is the stack of the greenlet that runs, by default the caller's. `is_here`: whether the caller is in the
    loop's thread; only there the others can be looked at.
    """
    if running is None:
        running = _without_us(stack_lists.of_frame(sys._getframe()))
    found = []
    waits = {id(wait.greenlet): wait for wait in again(lambda: sorted(account.waits, key=_since))}
    for greenlet in _greenlets(account):
        is_main = greenlet is account.greenlet
        # Past what a class of the application's may do when it is asked for its name.
        own_name = greenlet.name if type(greenlet) is gevent.Greenlet else "greenlet"
        name = "request" if is_main else redaction.line(str(own_name))
        is_running = greenlet is insight.slices.current and not insight.slices.is_idle()
        wait = waits.get(id(greenlet))
        state = "running" if is_running else f"{wait.kind} {_detail(wait)}".strip() if wait else "waiting"
        stack = running if is_running else stack_lists.of_frame(greenlet.gr_frame) if is_here else []
        own = next((place for place, call in enumerate(stack) if not stack_lists.is_installed_file(call.file)), None)
        found.append({"name": name, "state": state, "stack": [str(call) for call in stack], "own": own})
    return found


def _without_us(stack: stack_lists.Stack) -> stack_lists.Stack:
    """Return the stack without our own innermost calls, which asked for it."""
    number = 0
    while number < len(stack) and stack_lists.is_ours(stack[number].file):
        number += 1
    return stack[number:]


def _greenlets(account: Account) -> list[Any]:
    """The main one first; of those that it started, those that still work for it."""
    found: dict[Any, None] = {}
    if account.greenlet is not None:
        found[account.greenlet] = None
    for greenlet in again(lambda: [*account.waiting, *(account.helpers or ())]):
        if not greenlet.dead:
            found[greenlet] = None
    return list(found)


def _worker(worker: Any) -> dict[str, Any]:
    serving, line = worker.serving, worker.line
    gate, admission = serving.gate, serving.admission
    return {
        "state": line.state_name if hasattr(line, "state_name") else _state_name(line.state),
        "requests": worker.nr,
        "connections": len(serving.connections),
        "in_flight": len(serving.in_flight),
        "queued": admission.waiting,
        "line_seconds": admission.line_seconds,
        "limit_requests": serving.settings.limit_requests,
        "load": gate.load,
        "load_limit": gate.limit,
        "cost_seconds": gate.cost,
        "rss_bytes": int(line.rss_bytes),
        "accepted": int(line.accepted),
        "shed_requests": admission.shed_requests,
        "left_requests": admission.left_requests,
        "queued_requests": admission.queued_requests,
        "connections_given_away": serving.sharing.given if serving.sharing is not None else 0,
        "empty_turns": serving.turns.empty,
        "is_spinning": serving.spin_watch.is_spinning,
        "spent_requests": serving.spent_requests,
        "abandoned_requests": serving.abandoned_requests,
    }


def _state_name(state: float) -> str:
    names = ("empty", "booting", "serving", "retiring", "draining")
    return names[int(state)] if 0 <= state < len(names) else ""


def _insight(worker: Any, insight: Insight, now: float) -> dict[str, Any]:
    routes = again(lambda: dict(insight.routes.by_pattern))
    live = again(lambda: list(insight.slices.live))
    by_route = {pattern: again(route.as_dict) for pattern, route in routes.items()}
    waiters = {id(waiter.record): waiter for waiter in again(lambda: list(insight.locks.waiting.values()))}
    states: dict[str, int] = {}
    patterns: dict[str, int] = {}
    for account in live:
        states[STATES[account.state]] = states.get(STATES[account.state], 0) + 1
        pattern = account.pattern()
        patterns[pattern] = patterns.get(pattern, 0) + 1
    return {
        "start_id": insight.start_id,
        "started_at": insight.started_at,
        "age_seconds": now - insight.began,
        "seconds": [sum(column) for column in zip(*(one["seconds"] for one in by_route.values()), strict=True)]
        or [0.0] * len(STATES),
        "loop": _loop(worker, insight, now),
        "routes": by_route,
        "upstreams": upstreams(insight),
        "databases": databases(now),
        "bad_callers": bad_callers(),
        "failures": again(insight.failures.as_list),
        "failed": again(insight.failures.counted),
        "queries": again(insight.queries.counted),
        "repeated": again(insight.queries.as_list),
        "holders": insight.callers.holders,
        "executors": insight.callers.executors,
        "beside": insight.beside.rows,
        "garbage": insight.stalls.garbage.as_dict(),
        "growth": again(insight.growth.as_list),
        "clients": again(insight.clients.as_dict),
        "pools": again(pools.all_pools),
        "stalls": _stalls(insight, now),
        "held": insight.held.as_list(),
        "locks": {"deadlocks": insight.deadlocks()},
        "greenlets": insight.greenlets(),
        "in_flight": [
            {**in_flight(account, now, insight.callers.since), **_lock(waiters, account)}
            for account in live[:MOST_IN_FLIGHT]
        ],
        "in_flight_states": states,
        "in_flight_routes": patterns,
        "waiting": attach(
            waiting_for(
                [(STATES[one.state], one.detail, now - insight.callers.since(one)) for one in live if one.state > READY]
            ),
            insight.callers.lines,
        ),
    }


def _loop(worker: Any, insight: Insight, now: float) -> dict[str, Any]:
    turns, slices = worker.serving.turns, insight.slices
    is_idle = slices.is_idle()
    return {
        "is_idle": is_idle,
        "current_turn_seconds": 0.0 if is_idle else max(0.0, now - turns.began_at),
        "turns": turns.count,
        "busy_seconds": turns.busy_seconds,
        "idle_seconds": turns.idle_seconds,
        "last_turn_seconds": turns.last_seconds,
        "late_turns": slices.late_turns,
        "hub_seconds": slices.hub_seconds,
        "request_seconds": slices.request_seconds,
        "background_seconds": slices.background_seconds,
        "stolen_seconds": insight.stalls.machine_stolen_seconds,
    }


def _stalls(insight: Insight, now: float) -> dict[str, Any]:
    stalls, slices = insight.stalls, insight.slices
    lines = again(lambda: list(stalls.lines.values()))
    current = None
    seconds = now - slices.began
    if not slices.is_idle() and seconds > stalls.threshold_seconds:
        account = slices.running
        stack = stalls.stack_now()
        guilty = stack_lists.guilty(stack)
        current = {
            "seconds": seconds,
            "request": account.id if account is not None else "",
            "route": account.pattern() if account is not None else "",
            "line": guilty.place if guilty is not None else "",
            "stack": [str(call) for call in stack],
            "holds_gil": again(lambda: stalls.holds_gil(slices.began)),
        }
    return {
        "total": stalls.total,
        "seconds": stalls.seconds,
        "unblamed": stalls.unblamed,
        "threshold_seconds": stalls.threshold_seconds,
        "current": current,
        "top": [line.as_dict() for line in sorted(lines, key=_seconds, reverse=True)[:MOST_STALL_LINES]],
        "last": [stall.as_dict() for stall in again(lambda: list(stalls.last))[:MOST_STALLS]],
    }


def in_flight(account: Account, now: float, since: Callable[[Account], float] = waits_since) -> dict[str, Any]:
    """One request, without anything that came from its client but its method and what may be seen of its path."""
    environ = account.environ or {}
    waits = again(lambda: sorted(account.waits, key=_since))
    return {
        "id": account.id,
        "route": account.pattern(),
        "method": redaction.line(str(environ.get("REQUEST_METHOD", ""))),
        "path": redaction.path(str(environ.get("PATH_INFO", ""))),
        "client": redaction.line(account.client),
        "age_seconds": now - account.began,
        "state": "running" if account.state == CPU else STATES[account.state],
        "detail": redaction.detail(STATES[account.state], detail_of(account)),
        "state_seconds": max(0.0, now - since(account)),
        "budget_seconds": None if account.deadline == FOREVER else max(0.0, account.deadline - now),
        "is_cut": account.is_cut,
        "became": account.became,
        "seconds": account.seconds_at(now),
        "waits": [
            {"kind": wait.kind, "detail": _detail(wait), "seconds": max(0.0, now - wait.since)} for wait in waits
        ],
        "greenlets": len(_greenlets(account)),
    }


def _lock(waiters: Mapping[int, Waiter], account: Account) -> dict[str, str]:
    """Describe the lock that a request waits for, where that is held."""
    waiter = waiters.get(id(account)) if STATES[account.state] == "lock" else None
    return {"held_by": waiter.holder()} if waiter is not None else {}


def _since(wait: Wait) -> float:
    return wait.since


def _seconds(line: Any) -> float:
    return float(line.seconds)


def _detail(wait: Wait) -> str:
    return redaction.detail(wait.kind, wait.detail)
