"""Workers that say what a test wants them to say."""

from collections.abc import Mapping
from typing import Any

from greenroom.insight.facts import waiting_for
from greenroom.ops.collect import Moment, Seen
from greenroom.ops.counters import Counters
from greenroom.ops.view import view
from greenroom.worker.balance import TOTALS, State

STATES = ["cpu", "ready", "upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other"]
LE = [0.01, 0.1, 1.0, None]
NOW = 1000.0
ABOUT = {"app": "shop:app", "bind": ["127.0.0.1:8000"], "arbiter": 1, "timeout_seconds": 30}


def route(count: int = 10, bucket: int = 1, status: str = "2xx", state: str = "cpu", seconds: float = 0.05) -> Any:
    """`count` requests of the same length, all of whose time went into one state."""
    by_state = [count * seconds if name == state else 0.0 for name in STATES]
    return {
        "count": count,
        "statuses": {status: count},
        "seconds": by_state,
        "total_seconds": count * seconds,
        "buckets": [count if number == bucket else 0 for number in range(len(LE))],
        "bands": {str(bucket): by_state},
        "cut": 0,
    }


def request(state: str = "upstream", detail: str = "api:443", seconds: float = 2.0, **more: Any) -> dict[str, Any]:
    return {
        "id": "r-1",
        "route": "/orders/<id>",
        "method": "GET",
        "path": "/orders/7",
        "age_seconds": seconds + 0.1,
        "state": state,
        "detail": detail,
        "state_seconds": seconds,
        "budget_seconds": None,
        "is_cut": False,
        "seconds": [0.0] * len(STATES),
        "waits": [],
        "greenlets": 1,
        **more,
    }


def snapshot(
    start_id: str = "w1", routes: Mapping[str, Any] | None = None, in_flight: Any = (), **more: Any
) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for row in in_flight:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return {
        "version": 1,
        "start_id": start_id,
        "pid": 11,
        "states": STATES,
        "le": LE,
        "seconds": [0.0] * len(STATES),
        "worker": {"in_flight": len(in_flight), "queued": 0, "limit_requests": 0},
        "loop": {},
        "routes": routes or {},
        "upstreams": {},
        "pools": [],
        "stalls": {"total": 0, "seconds": 0.0, "current": None, "top": [], "last": []},
        "held": [],
        "locks": {"deadlocks": []},
        "greenlets": {"count": 1},
        "in_flight": list(in_flight),
        "in_flight_states": counts,
        "in_flight_routes": {},
        "waiting": waiting_for(
            [
                (row["state"], row["detail"], row["state_seconds"])
                for row in in_flight
                if row["state"] not in ("cpu", "running", "ready")
            ]
        ),
        **more,
    }


def seen(
    number: int = 1,
    said: dict[str, Any] | None = None,
    *,
    state: State = State.SERVING,
    silent: float = 0.0,
    unanswered: float = 0.0,
    cpu: float = 0.1,
    **more: Any,
) -> Seen:
    line = {
        "number": number,
        "pid": 10 + number,
        "state": float(state),
        "heartbeat": NOW - silent,
        "lag_seconds": 0.0,
        "connections": 3.0,
        "in_flight": float(len((said or {}).get("in_flight") or [])),
        "requests": 10.0,
        "shed": 0.0,
        "offered": 0.0,
        "rss_bytes": 5e7,
    }
    return Seen(
        number=number,
        pid=10 + number,
        line={**line, **{name: more.pop(name) for name in list(more) if name in line}},
        first_seen_at=NOW - 100,
        seen_at=NOW,
        snapshot=said,
        answered_at=NOW - unanswered,
        cpu_ratio=cpu,
        **more,
    )


def moment(*workers: Seen, grown: Mapping[str, float] | None = None, **more: Any) -> Moment:
    """`grown` is by how much totals grew in the last 10 seconds."""
    sums = Counters()
    for worker in workers:
        if worker.snapshot is not None:
            sums.update({**worker.snapshot, "start_id": f"w{worker.number}"})
    totals = dict.fromkeys(TOTALS, 100.0)
    known = {
        "now": NOW,
        "at": 1.7e9,
        "totals": {**totals, **{name: 100.0 + amount for name, amount in (grown or {}).items()}},
        "workers": list(workers),
        "sums": sums.total(),
        "before": Counters().total(),
        "totals_before": totals,
        "window_seconds": 10.0,
        "history": [{"now": NOW, "lag_seconds": 0.0}],
        "events": [],
        "machine_cpu_ratio": 0.5,
        "cores": 2,
    }
    return Moment(**{**known, **more})


def shown(*workers: Seen, **more: Any) -> dict[str, Any]:
    return view(moment(*workers, **more), ABOUT)
